//! The queues on the disk: a folder for each receiver, a file for each alert. A thread of its own
//! writes, so that nobody waits for the disk.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
};

use super::{
    folder_of, is_id,
    queue::{Alert, MOST_WAITING},
};
use crate::{audit::Record, channel::MAX_MESSAGE};

/// Changes that may wait for the disk.
const CHANGES: usize = 4_096;
const SUFFIX: &str = ".json";

/// The folder of all queues.
#[derive(Debug)]
pub(super) struct Spool {
    changes: SyncSender<Change>,
}

#[derive(Debug)]
enum Change {
    Store(String, Alert),
    Remove(String, String),
}

impl Spool {
    /// Opens the folders of these receivers, and reads what waits for each.
    pub(super) fn open(
        root: &Path,
        webhooks: &[String],
    ) -> io::Result<(Self, BTreeMap<String, Vec<Alert>>)> {
        let mut kept = BTreeMap::new();
        for webhook in webhooks {
            let folder = folder_of(root, webhook);
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&folder)?;
            kept.insert(webhook.clone(), read(&folder)?);
        }
        let (changes, queued) = sync_channel(CHANGES);
        let root = root.to_owned();
        thread::Builder::new()
            .name("alerts".to_owned())
            .spawn(move || write(&root, &queued))?;
        Ok((Self { changes }, kept))
    }

    /// Keeps an alert over a restart.
    pub(super) fn store(&self, webhook: &str, alert: Alert) {
        self.change(Change::Store(webhook.to_owned(), alert));
    }

    /// It is done with.
    pub(super) fn remove(&self, webhook: &str, id: String) {
        self.change(Change::Remove(webhook.to_owned(), id));
    }

    fn change(&self, change: Change) {
        if self.changes.try_send(change).is_err() {
            tracing::error!("the disk does not keep up: an alert may be lost or sent again");
        }
    }
}

fn write(root: &Path, changes: &Receiver<Change>) {
    while let Ok(change) = changes.recv() {
        let (what, done) = match &change {
            Change::Store(webhook, alert) => ("kept", store(&folder_of(root, webhook), alert)),
            Change::Remove(webhook, id) => {
                let file = folder_of(root, webhook).join(format!("{id}{SUFFIX}"));
                ("removed", fs::remove_file(file))
            }
        };
        match done {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::error!(%error, "an alert cannot be {what} in {}", root.display());
            }
            _ => {}
        }
    }
}

/// Whole or not at all.
fn store(folder: &Path, alert: &Alert) -> io::Result<()> {
    let draft = folder.join(format!("{}.new", alert.id));
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&draft)?;
    file.write_all(alert.body.as_bytes())?;
    file.sync_data()?;
    fs::rename(draft, folder.join(format!("{}{SUFFIX}", alert.id)))
}

/// The alerts in a folder, the oldest first. What is none is passed over, and said.
fn read(folder: &Path) -> io::Result<Vec<Alert>> {
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(folder)? {
        files.push(entry?.path());
    }
    files.sort();
    let mut alerts = Vec::new();
    for file in files {
        match read_alert(&file) {
            Some(alert) if alerts.len() < MOST_WAITING => alerts.push(alert),
            Some(_) => {}
            None => tracing::warn!("{} is no alert", file.display()),
        }
    }
    Ok(alerts)
}

fn read_alert(file: &Path) -> Option<Alert> {
    let id = file.file_name()?.to_str()?.strip_suffix(SUFFIX)?;
    let mut body = String::new();
    let longest = MAX_MESSAGE as u64 / 2;
    let read = File::open(file)
        .ok()?
        .take(longest + 1)
        .read_to_string(&mut body);
    let record: Record = serde_json::from_str(&body).ok()?;
    (read.ok()? as u64 <= longest && is_id(id)).then(|| Alert {
        id: id.to_owned(),
        raised_at: record.time,
        body,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{audit::Event, clock::WallInstant};

    fn alert(id: &str) -> Alert {
        let raised_at = WallInstant::from_unix_seconds(7);
        let record = Record::new(raised_at, Event::Alert);
        Alert {
            id: id.to_owned(),
            body: serde_json::to_string(&record).unwrap(),
            raised_at,
        }
    }

    /// Waits until the writer has done all that it was told.
    fn wait_for(folder: &Path, expected: &[Alert]) {
        for _ in 0..500 {
            if read(folder).unwrap() == expected {
                return;
            }
            thread::sleep(std::time::Duration::from_millis(10));
        }
        panic!("{:?}", read(folder));
    }

    #[test]
    fn alerts_outlive_the_process_in_order_until_they_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let names = ["chat".to_owned()];
        let (spool, kept) = Spool::open(folder.path(), &names).unwrap();
        assert!(kept["chat"].is_empty());
        spool.store("chat", alert("2-b"));
        spool.store("chat", alert("1-a"));
        spool.store("chat", alert("3-c"));
        spool.remove("chat", "2-b".to_owned());
        let left = [alert("1-a"), alert("3-c")];
        wait_for(&folder.path().join("chat"), &left);
        let (_spool, kept) = Spool::open(folder.path(), &names).unwrap();
        assert_eq!(kept["chat"], left);
    }

    #[test]
    fn what_is_no_alert_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let chat = folder.path().join("chat");
        fs::create_dir(&chat).unwrap();
        fs::write(chat.join("1-a.json"), "{\"torn").unwrap();
        fs::write(chat.join("1-b.new"), "{}").unwrap();
        fs::write(chat.join("x y.json"), alert("x").body).unwrap();
        fs::write(chat.join("1-c.json"), "x".repeat(MAX_MESSAGE)).unwrap();
        fs::write(chat.join("1-d.json"), alert("1-d").body).unwrap();
        let (_spool, kept) = Spool::open(folder.path(), &["chat".to_owned()]).unwrap();
        assert_eq!(kept["chat"], [alert("1-d")]);
    }
}
