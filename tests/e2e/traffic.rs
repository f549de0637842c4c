//! The requests of commands, counted by a proxy: their number does not grow with the farm or the job.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use kiln_api::{AttemptReport, BlenderOffer, DeviceOffer, Down, Hello, Machine, Up};
use kiln_client::{Client, WorkerLink};
use kiln_testkit::{blender_series, scene, wait_until};
use kiln_types::{BlobHash, DeviceClass, FileFormat, OutputFile, OutputRole, PixelReport, RelPath, WorkerId};
use tokio::runtime::Runtime;

use crate::{support::Home, terminal::Terminal};

const LIMIT: Duration = Duration::from_secs(60);

/// Forwards between a command and its server.
struct Tap {
    url: String,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    /// `GET /api/v1/jobs/1`, one for each request.
    requests: Vec<String>,
    /// Bytes of all answers.
    answers: u64,
}

impl Tap {
    fn on(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = server.strip_prefix("http://").unwrap().to_owned();
        let seen = Arc::<Mutex<Seen>>::default();
        let noted = seen.clone();
        // Ends with the tests.
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(upstream) = TcpStream::connect(&server) else { return };
                let (up, down) = (noted.clone(), noted.clone());
                let (from, to) = (client.try_clone().unwrap(), upstream.try_clone().unwrap());
                thread::spawn(move || pass(from, to, |bytes| up.lock().unwrap().asked(bytes)));
                thread::spawn(move || {
                    pass(upstream, client, |bytes| down.lock().unwrap().answers += bytes.len() as u64);
                });
            }
        });
        Self { url, seen }
    }

    /// The number of requests to paths that contain this.
    fn count(&self, what: &str) -> usize {
        self.seen.lock().unwrap().requests.iter().filter(|request| request.contains(what)).count()
    }

    fn clear(&self) {
        *self.seen.lock().unwrap() = Seen::default();
    }
}

impl Seen {
    /// The requests of these commands have no bodies, and each comes in one piece.
    fn asked(&mut self, bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes);
        let lines = text.lines().filter_map(|line| line.strip_suffix(" HTTP/1.1"));
        self.requests.extend(lines.map(str::to_owned));
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, mut note: impl FnMut(&[u8])) {
    let mut buffer = [0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        note(&buffer[..count]);
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    // The other side may have gone first.
    let _ = to.shutdown(Shutdown::Write);
}

/// A worker that renders nothing and speaks as one that does.
async fn join(client: &Client, id: u64, series: &str, slots: u16) -> WorkerLink {
    let device =
        |class| DeviceOffer { class, name: "A card with a name as cards have them".to_owned(), memory: None };
    let hello = Hello {
        machine: Machine { hostname: format!("node-{id}"), cores: 64, ..Machine::default() },
        slots,
        blenders: vec![BlenderOffer {
            version: series.parse().unwrap(),
            build_hash: "abc".to_owned(),
            flavor: kiln_types::BlenderFlavor::Executable,
            engines: vec!["CYCLES".to_owned(), "BLENDER_EEVEE".to_owned()],
            devices: vec![device(DeviceClass::Cpu), device(DeviceClass::Cuda), device(DeviceClass::Optix)],
            denoisers: vec!["OPENIMAGEDENOISE".to_owned()],
        }],
        ..Hello::new(WorkerId::from_bits(id).unwrap(), format!("node-{id}").parse().unwrap())
    };
    let mut link = client.connect_worker().await.unwrap();
    link.send(&Up::Hello(Box::new(hello))).await.unwrap();
    assert!(matches!(link.recv().await.unwrap(), Some(Down::Welcome(_))));
    link
}

/// Gives signs of life and nothing else, until the server goes.
async fn stay(mut worker: WorkerLink) {
    loop {
        match tokio::time::timeout(Duration::from_secs(5), worker.recv()).await {
            Ok(Ok(Some(_))) => {}
            Ok(_) => return,
            Err(_) => {
                if worker.send(&Up::Heartbeat).await.is_err() {
                    return;
                }
            }
        }
    }
}

fn client(home: &Home, url: &str) -> Client {
    let key = std::fs::read_to_string(home.data().join("farm.key")).unwrap();
    Client::new(url, key.trim()).unwrap()
}

#[test]
fn a_terminal_that_looks_on_asks_for_what_it_shows_and_not_for_every_worker() {
    let home = Home::new();
    home.copy(&scene("basic"), "shot.blend");
    let server = home.server(&[]);
    let client = client(&home, &server.url);
    let runtime = Runtime::new().unwrap();
    // A hundred workers that have nothing to do with it, and one that renders its first frame without end.
    runtime.block_on(async {
        for id in 2..102 {
            tokio::spawn(stay(join(&client, id, "2.93.1", 1).await));
        }
    });
    let mut worker = runtime.block_on(join(&client, 1, &format!("{}.1", blender_series()), 1));
    let job = home.submit(&["shot.blend", "--frames", "1-3"]);
    runtime.block_on(async {
        loop {
            if let Some(Down::Assign(assignment)) = worker.recv().await.unwrap() {
                let attempt = assignment.tasks[0].attempt;
                worker.send(&Up::Started { attempt }).await.unwrap();
                worker.send(&Up::Progress { attempt, fraction: 0.3 }).await.unwrap();
                tokio::spawn(stay(worker));
                return;
            }
        }
    });

    let tap = Tap::on(&server.url);
    let mut command = home.kiln(&["jobs", "wait", &job, "--server", &tap.url]);
    command.env("TERM", "xterm-256color").env_remove("NO_COLOR");
    let mut terminal = Terminal::run(&command, 100, 10);
    terminal.shows("frame 1 at 30%");
    tap.clear();
    wait_until(LIMIT, "it asks again and again", || tap.count("/running") >= 8);
    let (asked, answers) = {
        let seen = tap.seen.lock().unwrap();
        (seen.requests.len() as u64, seen.answers)
    };
    assert_eq!(tap.count("/workers"), 0, "the other workers are nothing to it");
    // The requests read the job now and then, and the progress of its frames.
    assert!(asked <= 16, "{asked} requests: {:#?}", tap.seen.lock().unwrap().requests);
    assert!(answers < 3_000 * asked, "{answers} bytes for {asked} requests");

    // A screen of the whole farm reads all workers once, and then what they render.
    let mut command = home.kiln(&["top", "--server", &tap.url]);
    command.env("TERM", "xterm-256color").env_remove("NO_COLOR");
    let mut top = Terminal::run(&command, 120, 40);
    top.shows("node-1");
    top.shows("30%");
    tap.clear();
    wait_until(LIMIT, "it reads what runs again and again", || tap.count("GET /api/v1/running") >= 4);
    assert!(tap.count("/workers") <= 1, "{:#?}", tap.seen.lock().unwrap().requests);
    top.press("q");
    assert_eq!(top.ended(), 0);
    runtime.block_on(client.cancel(job.parse().unwrap())).unwrap();
    terminal.ended();
}

#[test]
fn what_is_asked_about_a_job_does_not_grow_faster_than_the_job() {
    const FRAMES: usize = 1_100;
    let home = Home::new();
    home.copy(&scene("basic"), "shot.blend");
    let server = home.server(&[]);
    let client = client(&home, &server.url);
    let runtime = Runtime::new().unwrap();
    let job = home.submit(&["shot.blend", "--frames", &format!("1-{FRAMES}")]);
    runtime.block_on(deliver(&client, FRAMES));
    home.completed(&job);

    let tap = Tap::on(&server.url);
    // Three of four it asks for an attempt, each of one, until there is one; then for its log.
    let log = home.run(&["jobs", "logs", &job, "--server", &tap.url]);
    assert_eq!((log.code, log.out.trim()), (0, "Fra:1100"), "{}", log.err);
    let requests = tap.seen.lock().unwrap().requests.clone();
    assert!(tap.count("/attempts?") <= 4 && requests.len() <= 6, "{requests:#?}");
    assert!(tap.seen.lock().unwrap().answers < 10_000, "as if all attempts came");
    let log = home.run(&["jobs", "logs", &job, "--frame", "7", "--server", &tap.url]);
    assert_eq!(log.out.trim(), "Fra:7");

    tap.clear();
    let shown = home.json(&["jobs", "show", &job, "--json", "--server", &tap.url]);
    let frames =
        shown["attempts"].as_array().unwrap().iter().map(|attempt| attempt["frame"].as_u64().unwrap());
    let frames: Vec<u64> = frames.collect();
    assert_eq!(frames.len(), FRAMES);
    assert_eq!(tap.count("/attempts"), 1, "{:#?}", tap.seen.lock().unwrap().requests);
}

/// Renders these frames, in no time.
async fn deliver(client: &Client, frames: usize) {
    let picture = b"not decoded when it is stored";
    let hash = BlobHash::of(picture);
    client.put_blob_bytes(hash, picture.to_vec().into()).await.unwrap();
    let mut worker = join(client, 1, &format!("{}.1", blender_series()), 2).await;
    let mut left = frames;
    while left > 0 {
        let down = tokio::time::timeout(LIMIT, worker.recv()).await.expect("nothing else is dispatched");
        let Some(Down::Assign(assignment)) = down.unwrap() else { continue };
        for task in &assignment.tasks {
            let (attempt, frame) = (task.attempt, task.frame.unwrap());
            worker.send(&Up::Started { attempt }).await.unwrap();
            worker.send(&Up::Log { attempt, text: format!("Fra:{frame}\n") }).await.unwrap();
            let file = OutputFile {
                path: RelPath::new(&format!("{frame:04}.png")).unwrap(),
                role: OutputRole::Main { view: None },
                hash,
                size: picture.len() as u64,
                format: FileFormat::Png,
                width: 4,
                height: 4,
                pixels: PixelReport::default(),
            };
            let finish = AttemptReport::Done { files: vec![file.into()], seconds: 0.1, peak_memory: 1 };
            let (task, generation) = (task.task, task.generation);
            worker.send(&Up::Finished { attempt, task, generation, report: finish }).await.unwrap();
            left -= 1;
        }
    }
    // Its last reports are read before the connection ends.
    let (mut sender, mut receiver) = worker.split();
    sender.close().await;
    while let Ok(Some(_)) = receiver.recv().await {}
}
