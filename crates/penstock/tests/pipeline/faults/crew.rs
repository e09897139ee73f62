//! The processes of one service, beaten and started again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use nix::sys::signal::Signal;
use tokio::time::{Duration, sleep};

use super::plan::Blow;
use crate::rig::Rig;
use crate::service::Service;

/// The process IDs of all who run, by their names.
pub(crate) type Roster = Arc<Mutex<BTreeMap<String, u32>>>;

/// The processes of one service.
pub(crate) struct Crew<'a> {
    rig: &'a Rig,
    /// What is run: the command, and how a process is told its name.
    command: Vec<String>,
    named: Option<&'static str>,
    members: Vec<Member>,
    roster: Roster,
    /// The number of the next new name.
    next: usize,
    /// Who ended by itself.
    ended: Vec<String>,
}

struct Member {
    name: String,
    service: Service,
}

// === impl Crew ===

impl<'a> Crew<'a> {
    /// Starts so many processes of a command; `named` is the setting that holds their names.
    pub(crate) fn start(
        rig: &'a Rig,
        command: Vec<String>,
        named: Option<&'static str>,
        count: usize,
        roster: &Roster,
    ) -> Self {
        let roster = Arc::clone(roster);
        let mut crew = Self { rig, command, named, members: Vec::new(), roster, next: 0, ended: Vec::new() };
        for _ in 0..count {
            let member = crew.hire();
            crew.members.push(member);
        }
        crew
    }

    pub(crate) async fn strike(&mut self, which: usize, blow: Blow, pause: Duration) {
        let at = which % self.members.len();
        self.look(at);
        if blow == Blow::Freeze {
            self.members[at].service.signal(Signal::SIGSTOP);
            sleep(pause).await;
            self.members[at].service.signal(Signal::SIGCONT);
            return;
        }
        let Member { name, service } = self.members.remove(at);
        self.roster.lock().unwrap().remove(&name);
        service.kill().await;
        sleep(pause).await;
        let member = if blow == Blow::Replace { self.hire() } else { self.run(name) };
        self.members.insert(at, member);
    }

    /// Starts again whoever ended by itself, and notes it.
    pub(crate) fn look_at_all(&mut self) {
        (0..self.members.len()).for_each(|at| self.look(at));
    }

    /// Ends all in order; returns what was not as it should be with any of them.
    pub(crate) async fn end(mut self) -> Vec<String> {
        for member in &self.members {
            member.service.signal(Signal::SIGTERM);
        }
        for Member { name, service } in self.members {
            if let Some(how) = service.ended_badly().await {
                self.ended.push(format!("{name} {how}"));
            }
        }
        self.ended
    }

    fn look(&mut self, at: usize) {
        let member = &mut self.members[at];
        if let Some(status) = member.service.has_ended() {
            self.ended.push(format!("{} ended by itself: {status}", member.name));
            let name = member.name.clone();
            self.members[at] = self.run(name);
        }
    }

    fn hire(&mut self) -> Member {
        self.next += 1;
        self.run(format!("{}-{}", self.command[0], self.next))
    }

    fn run(&self, name: String) -> Member {
        let mut arguments: Vec<&str> = self.command.iter().map(String::as_str).collect();
        let named = self.named.map(|setting| format!("{setting}={name}"));
        arguments.extend(named.iter().flat_map(|named| ["--set", named]));
        let service = self.rig.start_as(&format!("{name}.log"), &arguments);
        self.roster.lock().unwrap().insert(name.clone(), service.pid().unwrap());
        Member { name, service }
    }
}
