//! A job for any GPU: it waits for one, and all of it renders on the backend of the first worker that takes it.

use kiln_api::{Change, DeviceOffer, Explanation, Hello, JobView, UnmetRequirement};
use kiln_types::{BlenderSeries, DeviceClass, EventNumber, JobState};
use serde_json::json;

use crate::support::{FakeWorker, Farm, hello};

/// A worker with a card for each of these backends.
fn with_gpu(id: u64, name: &str, backends: &[DeviceClass]) -> Hello {
    let mut hello = hello(id, name, 1);
    let offer = |class: &DeviceClass| DeviceOffer { class: *class, name: "Made up".to_owned(), memory: None };
    for blender in &mut hello.blenders {
        blender.devices.extend(backends.iter().map(offer));
    }
    hello
}

async fn device_of(farm: &Farm, job: &JobView) -> DeviceClass {
    farm.client.job(job.id).await.unwrap().spec.session.device
}

#[tokio::test]
async fn a_job_for_any_gpu_waits_is_pinned_and_stays_so_over_a_restart() {
    let farm = Farm::start().await;
    let mut processor = FakeWorker::join(&farm, 1, "processor", 1).await;
    let job = farm.submit_with("1-6", json!({"device": "gpu"})).await;
    assert_eq!((job.spec.session.device, job.spec.any_gpu), (DeviceClass::Gpu, true));
    let (reason, waits) = (job.waits_for.clone().unwrap(), job.waits_for.unwrap().to_string());
    assert!(waits.starts_with("No worker of the farm has a GPU for Blender 3.4."), "{waits}");
    assert!(waits.contains("--device cpu"), "{waits}");
    let path = format!("/api/v1/jobs/{}/explain", job.id);
    let explained: Explanation = farm.get(&path).await.json().await.unwrap();
    assert_eq!(explained.steps[0].reasons, [reason]);
    let series = BlenderSeries { major: 3, minor: 4 };
    assert_eq!(explained.unmet[0].missing, [UnmetRequirement::Device { series, device: DeviceClass::Gpu }]);

    // Of several backends the best, whatever their order in the list.
    let hello = with_gpu(2, "both", &[DeviceClass::Cuda, DeviceClass::Optix]);
    let mut both = FakeWorker::join_as(&farm, hello.clone()).await;
    let first = both.assignment().await;
    assert_eq!((first.job, first.work.session.as_ref().unwrap().device), (job.id, DeviceClass::Optix));
    let job = farm.client.job(job.id).await.unwrap();
    assert_eq!((job.spec.session.device, job.spec.any_gpu), (DeviceClass::Optix, true));
    let mut events = farm.client.events(Some(EventNumber(0)), Some(job.id)).await.unwrap();
    loop {
        if let Change::JobDevice { device } = events.next().await.unwrap().change {
            assert_eq!(device, DeviceClass::Optix);
            break;
        }
    }
    both.deliver(&first.tasks[0]).await;

    // A worker with another backend gets nothing of it, nor does one without.
    let mut cuda = FakeWorker::join_as(&farm, with_gpu(3, "cuda", &[DeviceClass::Cuda])).await;
    let other = farm.submit_with("1-2", json!({"device": "cpu"})).await;
    assert_eq!(cuda.assignment().await.job, other.id);
    assert_eq!(processor.assignment().await.job, other.id);
    both.leave().await;
    cuda.leave().await;
    processor.leave().await;

    let farm = farm.restart().await;
    assert_eq!(device_of(&farm, &job).await, DeviceClass::Optix);
    let _cuda = FakeWorker::join_as(&farm, with_gpu(3, "cuda", &[DeviceClass::Cuda])).await;
    let explained: Explanation = farm.get(&path).await.json().await.unwrap();
    let waits = explained.steps[0].reasons[0].to_string();
    assert!(waits.contains("optix device for Blender 3.4. The job began on optix"), "{waits}");
    assert!(waits.contains("--device cpu"), "{waits}");
    let mut both = FakeWorker::join_as(&farm, hello).await;
    both.render(5).await;
    farm.reaches(&job, JobState::Completed).await;
}

#[tokio::test]
async fn a_device_that_nothing_came_from_binds_nothing() {
    let farm = Farm::start().await;
    let job = farm.submit_with("1", json!({"device": "gpu"})).await;
    let mut hip = FakeWorker::join_as(&farm, with_gpu(1, "hip", &[DeviceClass::Hip])).await;
    let assignment = hip.assignment().await;
    assert_eq!(assignment.work.session.as_ref().unwrap().device, DeviceClass::Hip);
    hip.report(&assignment.tasks[0], kiln_api::AttemptReport::Returned).await;
    hip.leave().await;
    let mut metal = FakeWorker::join_as(&farm, with_gpu(2, "metal", &[DeviceClass::Metal])).await;
    let assignment = metal.assignment().await;
    assert_eq!(assignment.work.session.as_ref().unwrap().device, DeviceClass::Metal);
    metal.deliver(&assignment.tasks[0]).await;
    assert_eq!(device_of(&farm, &job).await, DeviceClass::Metal);
}

#[tokio::test]
async fn who_names_no_device_gets_what_the_scene_says() {
    let farm = Farm::start().await;
    for change in [json!({}), json!({"device": "auto"}), json!({"device": "cpu"})] {
        let job = farm.submit_with("1", change).await;
        assert_eq!((job.spec.session.device, job.spec.any_gpu), (DeviceClass::Cpu, false));
        assert!(job.notices.is_empty(), "{:?}", job.notices);
    }
    assert!(farm.refuses(json!({"device": "vulkan"})).await.contains("vulkan"));
}
