//! Imports that end in between, and those that come after.

use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

use penstock_identity::import::{Source, Told, import};

use crate::made::{Made, make, text};
use crate::{Stage, gzip};

/// Several chunks of 4 MiB.
fn large() -> Made {
    make(9_000, 11)
}

/// Imports, and ends in the middle of whatever goes on once so many chunks were written.
async fn killed_after(stage: &Stage, path: &std::path::Path, chunks: u64) -> u64 {
    let (came, bytes) = (AtomicU64::new(0), AtomicU64::new(0));
    let tell = |told: Told<'_>| {
        if let Told::Came(totals) = told {
            bytes.store(totals.bytes, Ordering::SeqCst);
            came.fetch_add(1, Ordering::SeqCst);
        }
    };
    {
        let mut running = Box::pin(import(&stage.pool, Source::File(path.to_owned()), false, &tell));
        poll_fn(|context| match running.as_mut().poll(context) {
            _ if came.load(Ordering::SeqCst) >= chunks => Poll::Ready(()),
            Poll::Ready(_) => panic!("it ended before"),
            Poll::Pending => Poll::Pending,
        })
        .await;
    }
    bytes.into_inner()
}

#[tokio::test]
async fn an_import_that_was_killed_is_gone_on_with_where_it_was() {
    let made = large();
    let content = text(&made.lines);
    for (name, content) in [("plain", content.clone().into_bytes()), ("packed.gz", gzip(content.as_bytes()))] {
        let stage = Stage::new().await;
        let path = stage.file(name, content);
        let written = killed_after(&stage, &path, 2).await;
        assert!(written > 4 << 20, "{name}: {written}");

        let imported = stage.import(&path).await;
        let resumed: u64 = imported.told[0].strip_prefix("resumed at ").unwrap().parse().unwrap();
        // What was committed last may not have been told any more.
        assert!(resumed >= written, "{name}: {resumed} of {written}");
        let totals = imported.totals();
        assert_eq!(totals.lines, made.lines.len() as u64, "{name}");
        assert!(totals.operations < totals.lines, "{name}: all of it was read again");
        assert_eq!(stage.rows().await, made.rows, "{name}");

        let again = stage.import(&path).await.totals();
        assert_eq!((again.operations, again.lines), (0, totals.lines), "{name}");
    }
}

#[tokio::test]
async fn a_file_that_grew_is_read_on() {
    let (stage, made) = (Stage::new().await, make(500, 12));
    let (one, two) = made.lines.split_at(made.lines.len() / 2);
    // The last line is cut: the download ended in it.
    let path = stage.file("export", format!("{}{}", text(one), &two[0][..50]));
    let first = stage.import(&path).await.totals();
    assert_eq!((first.operations, first.bad), (one.len() as u64, 1));
    let path = stage.file("export", text(&made.lines));
    let second = stage.import(&path).await;
    assert_eq!(second.told, [format!("resumed at {}", text(one).len())]);
    let totals = second.totals();
    assert_eq!((totals.operations, totals.bad), (two.len() as u64, 0));
    assert_eq!(stage.rows().await, made.rows);
}

#[tokio::test]
async fn another_export_that_begins_alike_is_read_from_its_start() {
    let (stage, made) = (Stage::new().await, make(300, 13));
    let path = stage.file("export", text(&made.lines[..200]));
    stage.import(&path).await.totals();
    let mut other = made.lines.clone();
    other[1..].reverse();
    for (name, content) in [("export", text(&other).into_bytes()), ("export.gz", gzip(text(&other).as_bytes()))] {
        stage.run("DELETE FROM penstock.identities").await;
        let imported = stage.import(&stage.file(name, content)).await;
        if name == "export" {
            assert_eq!(imported.told, Vec::<String>::new());
            assert_eq!(imported.totals().operations, other.len() as u64);
            assert_eq!(stage.rows().await, made.rows);
        } else {
            assert_eq!(imported.told, [format!("resumed at {}", text(&other).len())], "it is the same, packed");
        }
    }
}

#[tokio::test]
async fn a_last_line_without_a_break_counts() {
    let (stage, made) = (Stage::new().await, make(40, 14));
    let content = text(&made.lines);
    let imported = stage.import(&stage.file("export", content.trim_end())).await.totals();
    assert_eq!((imported.operations, imported.bytes), (made.lines.len() as u64, content.len() as u64 - 1));
    assert_eq!(stage.rows().await, made.rows);
}
