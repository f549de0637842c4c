//! A user who works with Kiln for days, told by a seed: everything that the folders of two machines hold is compared
//! with a model after each step, and every frame with a cold render.
//!
//! A walk takes each action after each other once. Its parts are tests of their own; `scripts/user-test` walks on for
//! as long as one likes.

mod breaks;
mod call;
mod earlier;
mod farm;
mod files;
mod joint;
mod model;
mod render;
mod scene;
mod tree;
mod walk;
mod world;

use std::sync::Mutex;

use self::{
    walk::{Action, Pairs, Tally, circuit},
    world::World,
};

/// The walk of the ordinary tests.
const SEED: u64 = 13;
const PARTS: usize = 6;

impl World {
    fn act(&mut self, action: Action) {
        self.begin(action);
        match action {
            Action::Submit => self.submit(),
            Action::Render => self.render_on_farm(),
            Action::Local => self.render_here(),
            Action::Edit => self.edit(),
            Action::Texture => self.texture(),
            Action::Move => self.relocate(),
            Action::Cancel => self.cancel(),
            Action::Close => self.close(),
            Action::Restart => self.restart(),
            Action::Settings => self.settings(),
            Action::Fetch => self.fetch(),
            Action::Elsewhere => self.elsewhere(),
            Action::Delete => self.delete(),
            Action::Touch => self.touch(),
        }
    }

    /// Walks, and counts.
    fn walk(&mut self, actions: &[Action], pairs: &mut Pairs) {
        let mut before = None;
        for action in actions {
            self.act(*action);
            if let Some(before) = before {
                pairs.count(before, *action);
            }
            before = Some(*action);
        }
        self.finish();
    }
}

/// The steps of a part; it begins with the last of the part before, so that every pair lies within one.
fn steps_of(part: usize) -> std::ops::Range<usize> {
    let at = |part: usize| (Action::CIRCUIT - 1) * part / PARTS;
    at(part)..at(part + 1) + 1
}

fn walk_part(part: usize) {
    static ALL: Mutex<(usize, Pairs, Option<Tally>)> = Mutex::new((0, Pairs::NONE, None));
    let mut pairs = Pairs::NONE;
    let mut world = World::new(SEED, steps_of(part).start);
    world.walk(&circuit(SEED)[steps_of(part)], &mut pairs);
    let mut all = ALL.lock().unwrap();
    all.0 += 1;
    all.1.add(&pairs);
    let (done, pairs) = (all.0, all.1);
    let tally = all.2.get_or_insert_default();
    tally.add(&world.tally);
    // The last one tells: a run of some of them proves only what it says.
    println!("{done} of {PARTS} parts:\n{pairs}\n{tally}");
    assert!(done < PARTS || pairs.missing() == 0, "pairs that never came");
}

macro_rules! parts {
    ($($name:ident: $part:expr),*) => {
        $(#[test]
        fn $name() {
            walk_part($part);
        })*
    };
}

parts!(days_1: 0, days_2: 1, days_3: 2, days_4: 3, days_5: 4, days_6: 5);

/// `scripts/user-test STEPS [SEED [FROM]]`: whole walks, each from its own seed and with its own farm.
#[test]
#[ignore = "it takes as long as it is told: scripts/user-test"]
fn days_without_end() {
    let number = |name: &str, default: u64| {
        std::env::var(name)
            .map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is {text}")))
    };
    let (steps, seed) = (number("KILN_USER_STEPS", 5000), number("KILN_USER_SEED", 1));
    let mut from = usize::try_from(number("KILN_USER_FROM", 0)).unwrap();
    let mut left = usize::try_from(steps).unwrap();
    let (mut pairs, mut tally) = (Pairs::NONE, Tally::default());
    for seed in seed.. {
        let walk = &circuit(seed)[from..];
        let walk = &walk[..walk.len().min(left)];
        let started = std::time::Instant::now();
        let mut world = World::new(seed, from);
        world.walk(walk, &mut pairs);
        tally.add(&world.tally);
        let seconds = started.elapsed().as_secs_f64();
        println!("seed {seed}: {} steps in {seconds:.1} s; {} to go", walk.len(), left - walk.len());
        left -= walk.len();
        from = 0;
        if left == 0 {
            break;
        }
    }
    println!("{pairs}\n{} pairs never came\n{tally}", pairs.missing());
}
