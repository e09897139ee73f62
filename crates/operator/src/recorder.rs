//! Events of Kubernetes, each with the note of its own moment.
//!
//! kube's own recorder takes two Events of one reason and action for the same and keeps the first note of them, so that `kubectl
//! describe` goes on saying "3 to 2 workers" of what was long 1 to 2. Here the note is a part of what makes two the same.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::{Event, EventSeries};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::time::Instant;

/// For how long the same again is counted, as client-go does; after it, a new Event is written.
const SERIES: Duration = Duration::from_secs(360);

/// The longest note that the API server takes, in bytes.
const LONGEST_NOTE: usize = 1_024;

/// What an Event says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Note {
    /// Whether it is a Warning.
    pub(crate) warning: bool,
    /// In one word.
    pub(crate) reason: String,
    pub(crate) text: String,
    /// What was done, or which condition it is about.
    pub(crate) action: String,
}

/// Writes Events; the same again within some minutes is counted in the first.
pub(crate) struct Recorder {
    client: Client,
    controller: String,
    instance: String,
    written: Mutex<HashMap<(Option<String>, Note), Series>>,
}

/// An Event that stands in the cluster.
#[derive(Clone, Debug)]
struct Series {
    name: String,
    count: i32,
    last: Instant,
}

// === impl Recorder ===

impl Recorder {
    pub(crate) fn new(client: Client, controller: String, instance: String) -> Self {
        Self { client, controller, instance, written: Mutex::default() }
    }

    /// Writes an Event about an object, or counts it in the one that says the same.
    ///
    /// # Errors
    /// The API server does not answer, or refuses it.
    pub(crate) async fn record(&self, mut note: Note, about: &ObjectReference) -> Result<(), kube::Error> {
        clip(&mut note.text);
        let api: Api<Event> = Api::namespaced(self.client.clone(), about.namespace.as_deref().unwrap_or("default"));
        let key = (about.uid.clone(), note);
        let (now, at) = (Instant::now(), MicroTime(Timestamp::now()));
        let before = {
            let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
            written.retain(|_, series| now.duration_since(series.last) < SERIES);
            written.get(&key).cloned()
        };
        let series = match before {
            Some(before) => {
                let count = before.count.saturating_add(1);
                let series = EventSeries { count, last_observed_time: at.clone() };
                let patch = Patch::Merge(json!({ "series": series }));
                match api.patch(&before.name, &PatchParams::default(), &patch).await {
                    Ok(_) => Series { name: before.name, count, last: now },
                    // Its time in the cluster is over.
                    Err(kube::Error::Api(answer)) if answer.code == 404 => self.create(&api, &key.1, about, at).await?,
                    Err(error) => return Err(error),
                }
            }
            None => self.create(&api, &key.1, about, at).await?,
        };
        self.written.lock().unwrap_or_else(PoisonError::into_inner).insert(key, series);
        Ok(())
    }

    async fn create(
        &self,
        api: &Api<Event>,
        note: &Note,
        about: &ObjectReference,
        at: MicroTime,
    ) -> Result<Series, kube::Error> {
        let name = format!("{}.{:x}", about.name.as_deref().unwrap_or(&self.controller), at.0.as_nanosecond());
        let event = Event {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: about.namespace.clone(),
                ..ObjectMeta::default()
            },
            type_: Some(if note.warning { "Warning" } else { "Normal" }.to_owned()),
            reason: Some(note.reason.clone()),
            note: Some(note.text.clone()),
            action: Some(note.action.clone()),
            event_time: Some(at),
            regarding: Some(about.clone()),
            reporting_controller: Some(self.controller.clone()),
            reporting_instance: Some(self.instance.clone()),
            ..Event::default()
        };
        api.create(&PostParams::default(), &event).await?;
        Ok(Series { name, count: 1, last: Instant::now() })
    }
}

/// Cuts a text to what the note of an Event may hold.
fn clip(text: &mut String) {
    if text.len() > LONGEST_NOTE {
        let end = (0..=LONGEST_NOTE - '…'.len_utf8()).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_note_is_cut_between_characters() {
        let mut text = "é".repeat(900);
        clip(&mut text);
        assert!(text.len() <= LONGEST_NOTE && text.ends_with('…'), "{}", text.len());
        let mut short = "short".to_owned();
        clip(&mut short);
        assert_eq!(short, "short");
    }
}
