//! Resumable uploads.

use std::time::{Duration, SystemTime};

use futures_util::{FutureExt, StreamExt, stream};
use kiln_blobs::{BlobError, BlobStore, Durability, UploadOutcome, Uploads};
use kiln_types::{BlobHash, UploadId};

use crate::{breaking, files_below, finish, noise, pieces};

const LIMIT: u64 = 10 << 20;

async fn open(folder: &tempfile::TempDir) -> (Uploads, BlobStore) {
    let blobs = BlobStore::open(folder.path(), Durability::Durable).await.unwrap();
    (Uploads::open(folder.path(), blobs.clone(), LIMIT).await.unwrap(), blobs)
}

#[tokio::test]
async fn in_parts_over_a_broken_line_and_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = noise(5_000_000);
    let (uploads, _) = open(&folder).await;
    let id = uploads.create("shot.blend", Some(5_000_000)).await.unwrap();
    assert_eq!(uploads.append(id, 0, pieces(bytes[..1_500_000].chunks(999))).await.unwrap(), 1_500_000);
    // The line breaks: what had arrived counts.
    let error = uploads.append(id, 1_500_000, breaking(&bytes[1_500_000..2_000_000])).await.unwrap_err();
    assert!(matches!(error, BlobError::Stream(_)), "{error}");
    assert_eq!(uploads.offset(id).await.unwrap(), 2_000_000);
    let error = finish(&uploads, id).await.unwrap_err();
    assert!(matches!(error, BlobError::Incomplete { have: 2_000_000, want: 5_000_000 }), "{error}");

    drop(uploads);
    let (uploads, blobs) = open(&folder).await;
    let info = uploads.info(id).await.unwrap();
    assert_eq!((info.name.as_str(), info.offset, info.finished), ("shot.blend", 2_000_000, None));
    assert_eq!(uploads.append(id, 2_000_000, pieces([&bytes[2_000_000..]])).await.unwrap(), 5_000_000);
    let (hash, len) = finish(&uploads, id).await.unwrap();
    assert_eq!((hash, len), (BlobHash::of(&bytes), 5_000_000));
    blobs.verify(&hash).await.unwrap();

    // Asked again, also after a restart, the answer is the same.
    assert_eq!(finish(&uploads, id).await.unwrap(), (hash, len));
    drop(uploads);
    let (uploads, _) = open(&folder).await;
    assert_eq!(finish(&uploads, id).await.unwrap(), (hash, len));
    uploads.abort(id).await.unwrap();
    assert_eq!(files_below(folder.path()).len(), 1, "the blob alone is left");
}

#[tokio::test]
async fn a_request_that_is_dropped_keeps_what_it_wrote() {
    let folder = tempfile::tempdir().unwrap();
    let (uploads, blobs) = open(&folder).await;
    let bytes = noise(3 << 20);
    let id = uploads.create("a", None).await.unwrap();
    let stream = pieces([&bytes[..2 << 20]]).chain(stream::pending());
    let mut append = Box::pin(uploads.append(id, 0, stream));
    let part = folder.path().join("uploads").join(format!("{id}.part"));
    while part.metadata().unwrap().len() < 2 << 20 {
        assert!((&mut append).now_or_never().is_none());
        tokio::task::yield_now().await;
    }
    assert!(matches!(uploads.offset(id).await, Err(BlobError::Busy)));
    drop(append);
    // Until its last write has ended, the upload is busy.
    let offset = loop {
        match uploads.offset(id).await {
            Err(BlobError::Busy) => tokio::task::yield_now().await,
            offset => break offset.unwrap(),
        }
    };
    assert_eq!(offset, 2 << 20);
    uploads.append(id, offset, pieces([&bytes[2 << 20..]])).await.unwrap();
    let (hash, _) = finish(&uploads, id).await.unwrap();
    assert_eq!(hash, BlobHash::of(&bytes));
    blobs.verify(&hash).await.unwrap();
}

#[tokio::test]
async fn what_was_never_acknowledged_is_not_trusted_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (uploads, _) = open(&folder).await;
    let id = uploads.create("a", None).await.unwrap();
    uploads.append(id, 0, pieces([&b"kiln"[..]])).await.unwrap();
    drop(uploads);
    // As a crash may leave it: bytes behind the safe ones.
    let part = folder.path().join("uploads").join(format!("{id}.part"));
    std::fs::write(&part, b"kiln\0\0\0\0").unwrap();
    let (uploads, _) = open(&folder).await;
    assert_eq!(uploads.offset(id).await.unwrap(), 4);
    uploads.append(id, 4, pieces([&b"!"[..]])).await.unwrap();
    assert_eq!(finish(&uploads, id).await.unwrap(), (BlobHash::of(b"kiln!"), 5));
}

#[tokio::test]
async fn bad_input_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let (uploads, _) = open(&folder).await;
    for name in ["", "a\0b", &"a".repeat(1025)] {
        assert!(matches!(uploads.create(name, None).await, Err(BlobError::BadName(_))), "{name:?}");
    }
    assert!(matches!(uploads.create("a", Some(LIMIT + 1)).await, Err(BlobError::TooLarge { .. })));
    let gone = UploadId::from_bits(7).unwrap();
    assert!(matches!(uploads.offset(gone).await, Err(BlobError::NoUpload(_))));
    assert!(matches!(uploads.append(gone, 0, pieces([])).await, Err(BlobError::NoUpload(_))));

    let id = uploads.create("a", Some(6)).await.unwrap();
    uploads.append(id, 0, pieces([&b"kiln"[..]])).await.unwrap();
    let error = uploads.append(id, 3, pieces([&b"x"[..]])).await.unwrap_err();
    assert!(matches!(error, BlobError::WrongOffset { right: 4 }), "{error}");
    let error = uploads.append(id, 4, pieces([&b"too much"[..]])).await.unwrap_err();
    assert!(matches!(error, BlobError::BeyondSize { want: 6 }), "{error}");
    assert_eq!(uploads.offset(id).await.unwrap(), 4);

    let endless = uploads.create("b", None).await.unwrap();
    let piece = vec![0; 1 << 20];
    let error = uploads.append(endless, 0, pieces([&piece[..]; 11])).await.unwrap_err();
    assert!(matches!(error, BlobError::TooLarge { limit: LIMIT }), "{error}");
    uploads.abort(endless).await.unwrap();
    assert!(matches!(uploads.abort(endless).await, Err(BlobError::NoUpload(_))));
}

#[tokio::test]
async fn old_ones_expire_and_what_belongs_to_nothing_goes() {
    let folder = tempfile::tempdir().unwrap();
    let (uploads, _) = open(&folder).await;
    let id = uploads.create("a", None).await.unwrap();
    uploads.append(id, 0, pieces([&b"kiln"[..]])).await.unwrap();
    let hour = Duration::from_secs(3600);
    assert_eq!(uploads.expire(SystemTime::now() - hour).await.unwrap(), 0);
    assert_eq!(uploads.expire(SystemTime::now() + hour).await.unwrap(), 1);
    assert!(matches!(uploads.offset(id).await, Err(BlobError::NoUpload(_))));
    assert_eq!(files_below(folder.path()), Vec::<String>::new());

    let stray = UploadId::from_bits(5).unwrap();
    for kind in ["part", "new"] {
        std::fs::write(folder.path().join("uploads").join(format!("{stray}.{kind}")), b"x").unwrap();
    }
    drop(uploads);
    open(&folder).await;
    assert_eq!(files_below(folder.path()), Vec::<String>::new());
}

/// A collection looks at every upload, at whatever moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn looking_for_old_uploads_blocks_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = BlobStore::open(folder.path(), Durability::Ephemeral).await.unwrap();
    let uploads = Uploads::open(folder.path(), blobs, LIMIT).await.unwrap();
    let hour_ago = SystemTime::now() - Duration::from_secs(3600);
    let looking = tokio::spawn({
        let uploads = uploads.clone();
        async move {
            loop {
                uploads.finished(hour_ago).await.unwrap();
                assert_eq!(uploads.expirable(hour_ago).await.unwrap(), 0);
                assert_eq!(uploads.expire(hour_ago).await.unwrap(), 0);
            }
        }
    });
    for _ in 0..100 {
        let id = uploads.create("shot.blend", None).await.unwrap();
        uploads.append(id, 0, pieces([&b"some"[..]])).await.unwrap();
        assert_eq!(uploads.info(id).await.unwrap().offset, 4);
        for _ in 0..3 {
            finish(&uploads, id).await.unwrap();
        }
        uploads.abort(id).await.unwrap();
    }
    assert!(!looking.is_finished());
    looking.abort();
}

#[tokio::test]
async fn what_is_refused_was_seen_by_nobody_and_takes_nobodys_bytes_along() {
    let folder = tempfile::tempdir().unwrap();
    let (uploads, blobs) = open(&folder).await;
    let letter = b"Dear artist, this is no scene.";
    let hash = BlobHash::of(letter);
    for theirs in [false, true] {
        if theirs {
            // Somebody has sent the same as a texture, and was told that it is there.
            blobs.put_bytes(&letter[..]).await.unwrap();
        }
        let id = uploads.create("letter.blend", None).await.unwrap();
        uploads.append(id, 0, pieces([&letter[..]])).await.unwrap();
        let place = blobs.path(&hash);
        let refused = uploads.finish(id, move |mut file| {
            let mut read = String::new();
            std::io::Read::read_to_string(&mut file, &mut read).unwrap();
            assert_eq!(read.as_bytes(), letter);
            assert_eq!(place.exists(), theirs, "nobody is told of bytes that may be refused");
            Err("it is a letter".to_owned())
        });
        assert_eq!(refused.await.unwrap(), UploadOutcome::Refused("it is a letter".to_owned()));
        assert!(matches!(uploads.info(id).await, Err(BlobError::NoUpload(_))));
        assert_eq!(blobs.contains(&hash).await.unwrap(), theirs);
        assert_eq!(files_below(folder.path()).len(), usize::from(theirs), "nothing else is left");
    }
}
