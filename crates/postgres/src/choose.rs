//! Which of several servers is taken: each is tried, until one is what is asked for.

use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use penstock_core::causes::innermost;
use penstock_core::settings::Target;
use rand::seq::SliceRandom;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{Connection, Row};
use tokio::time::timeout;

use crate::address::Address;

/// How long a connection to one server may take where the address does not say.
const PATIENCE: Duration = Duration::from_secs(5);

/// What libpq learns from a server's greeting; a pooler passes neither on.
const ASK: &str = "SELECT pg_is_in_recovery(), current_setting('transaction_read_only') = 'on'";

/// What a server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Role {
    standby: bool,
    read_only: bool,
}

/// What came of one server.
enum Tried {
    /// It is what is asked for.
    Fits(PgConnection),
    /// It could not be reached, or is something else.
    Not(String),
    /// It refused the login: the others would as well.
    Refused(sqlx::Error),
}

// === impl Address ===

impl Address {
    /// Connects to the first server that is what is asked for, beginning with the one that was the last time.
    pub(crate) async fn choose(&self) -> sqlx::Result<(PgConnection, PgConnectOptions)> {
        let password = self.read_password().await?;
        let (servers, target) = (&self.parts().servers, self.parts().target);
        let count = servers.len().max(1);
        let first = self.first.load(Ordering::Relaxed);
        let mut order: Vec<usize> = (0..count).map(|index| (first + index) % count).collect();
        if self.parts().shuffled {
            order.shuffle(&mut rand::rng());
        }
        let mut failures = Vec::new();
        for target in rounds(target) {
            failures.clear();
            for &index in &order {
                // Whoever has no time for all of them goes on with the next one when asked again.
                self.first.store((index + 1) % count, Ordering::Relaxed);
                let options = self.options(servers.get(index), password.as_deref())?;
                let name = servers.get(index).map_or_else(|| self.to_string(), ToString::to_string);
                match self.attempt(&options, *target).await {
                    Tried::Fits(connection) => {
                        self.first.store(index, Ordering::Relaxed);
                        return Ok((connection, options));
                    }
                    Tried::Not(why) => failures.push(format!("{name} {why}")),
                    Tried::Refused(error) => {
                        self.first.store(index, Ordering::Relaxed);
                        return Err(error);
                    }
                }
            }
        }
        let wanted = match target {
            Target::Any | Target::PreferStandby => "no server answers".to_owned(),
            target => format!("no server is {}", target.name()),
        };
        let why = format!("{wanted}: {}", failures.join(", "));
        Err(sqlx::Error::Io(io::Error::new(io::ErrorKind::NotConnected, why)))
    }

    async fn attempt(&self, options: &PgConnectOptions, target: Target) -> Tried {
        let patience = self.parts().connect_timeout.unwrap_or(PATIENCE);
        let asked = async {
            let mut connection = PgConnection::connect_with(options).await?;
            if target == Target::Any {
                return Ok((connection, None));
            }
            // Not prepared: behind a pooler the second half could come to another session.
            let row = sqlx::raw_sql(ASK).fetch_one(&mut connection).await?;
            Ok((connection, Some(Role { standby: row.try_get(0)?, read_only: row.try_get(1)? })))
        };
        match timeout(patience, asked).await {
            Err(_) => Tried::Not("did not answer in time".to_owned()),
            Ok(Ok((connection, role))) => match role.and_then(|role| role.objection(target)) {
                None => Tried::Fits(connection),
                Some(objection) => {
                    let _ = timeout(patience, connection.close()).await;
                    Tried::Not(objection.to_owned())
                }
            },
            Ok(Err(error)) if is_login(&error) => Tried::Refused(error),
            Ok(Err(error)) => Tried::Not(format!("does not answer ({})", innermost(&error))),
        }
    }
}

// === impl Role ===

impl Role {
    /// Says why a server is not what is asked for.
    fn objection(self, target: Target) -> Option<&'static str> {
        let Self { standby, read_only } = self;
        match target {
            Target::ReadWrite if standby => Some("is a standby"),
            Target::ReadWrite if read_only => Some("is read-only"),
            Target::ReadOnly if !standby && !read_only => Some("takes writes"),
            Target::Primary if standby => Some("is a standby"),
            Target::Standby | Target::PreferStandby if !standby => Some("is a primary"),
            _ => None,
        }
    }
}

/// What is asked for in turn.
fn rounds(target: Target) -> &'static [Target] {
    match target {
        Target::Any => &[Target::Any],
        Target::ReadWrite => &[Target::ReadWrite],
        Target::ReadOnly => &[Target::ReadOnly],
        Target::Primary => &[Target::Primary],
        Target::Standby => &[Target::Standby],
        Target::PreferStandby => &[Target::PreferStandby, Target::Any],
    }
}

/// Returns whether a server answered that this login, or this address, is wrong.
fn is_login(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    let wrong = code.is_some_and(|code| code.starts_with("28") || code.starts_with("3D"));
    wrong || matches!(error, sqlx::Error::Configuration(_))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_target_takes_its_servers_and_no_others() {
        let primary = Role { standby: false, read_only: false };
        let frozen = Role { standby: false, read_only: true };
        let standby = Role { standby: true, read_only: true };
        for (target, fit) in [
            (Target::Any, [true, true, true]),
            (Target::ReadWrite, [true, false, false]),
            (Target::ReadOnly, [false, true, true]),
            (Target::Primary, [true, true, false]),
            (Target::Standby, [false, false, true]),
            (Target::PreferStandby, [false, false, true]),
        ] {
            let fits = [primary, frozen, standby].map(|role| role.objection(target).is_none());
            assert_eq!(fits, fit, "{target:?}");
        }
        assert_eq!(rounds(Target::PreferStandby), [Target::PreferStandby, Target::Any]);
    }
}
