//! The address of PostgreSQL: given whole, or in the parts that the message system before has in its environment.

use super::address::mask;
use super::layers::{Layers, Origin};
use super::section::Field;
use super::{Postgres, PostgresUrl, Secret, SettingError};

/// The setting that goes before all parts.
const WHOLE: &str = "postgres.url";

/// The parts without which there is no address.
const NEEDED: [(&str, &str); 3] = [
    ("postgres.host", "a host name, an IP address, or a socket directory"),
    ("postgres.database", "a database name"),
    ("postgres.user", "a user name"),
];

/// The parts that have a default, or may be missing.
const FURTHER: [&str; 2] = ["postgres.port", "postgres.password"];

/// Passes over the parts in the environment where the address is given whole: what they say is meant for somebody else.
pub(super) fn settle(layers: &Layers) -> Layers {
    let layers = layers.clone();
    if source(&layers, WHOLE).is_none() {
        return layers;
    }
    let parts = NEEDED.map(|(path, _)| path).into_iter().chain(FURTHER);
    let variables: Vec<&str> = parts.filter_map(field).flat_map(|part| part.older_names.iter().copied()).collect();
    layers.without(&variables)
}

/// Returns the address; none where nothing of it is set, or where `errors` says what is wrong.
pub(super) fn address(postgres: &Postgres, layers: &Layers, errors: &mut Vec<SettingError>) -> Option<PostgresUrl> {
    let url = whole(postgres, layers, errors);
    one_password(postgres, url.as_ref(), layers, errors);
    url
}

/// Refuses a second password: nobody could say which one counts.
fn one_password(postgres: &Postgres, url: Option<&PostgresUrl>, layers: &Layers, errors: &mut Vec<SettingError>) {
    let Postgres { password_file: file, password_command: command, .. } = postgres;
    let mut refuse = |path: &str, value: &Option<String>, allowed: &str| {
        let origin = source(layers, path).unwrap_or(Origin::Default);
        let value = value.clone().unwrap_or_default();
        errors.push(SettingError { field: path.to_owned(), origin, value, allowed: allowed.to_owned() });
    };
    if command.is_some() && file.is_some() {
        refuse(
            "postgres.passwordCommand",
            command,
            "nothing where postgres.passwordFile is set: one of them says the password",
        );
    }
    let path = if file.is_some() { "postgres.passwordFile" } else { "postgres.passwordCommand" };
    let given = file.is_some() || command.is_some();
    if given && url.is_some_and(|url| url.parts().password.is_some()) {
        let set = if file.is_some() { file } else { command };
        refuse(path, set, "nothing where the address has a password: leave that out");
    }
}

/// Returns the address; none where nothing of it is set, or where `errors` says what is wrong.
fn whole(postgres: &Postgres, layers: &Layers, errors: &mut Vec<SettingError>) -> Option<PostgresUrl> {
    let parts = || NEEDED.iter().map(|(path, _)| *path).chain(FURTHER);
    let first = parts().find_map(|path| Some((path, source(layers, path)?)));
    let (None, Some((set, origin))) = (&postgres.url, first) else { return postgres.url.clone() };
    let Postgres { host: Some(host), database: Some(database), user: Some(user), .. } = postgres else {
        let because = match &origin {
            Origin::Environment(name) => format!("{set} ({name}) is set"),
            _ => format!("{set} is set"),
        };
        errors.extend(NEEDED.iter().filter(|(path, _)| source(layers, path).is_none()).map(|(path, what)| {
            SettingError {
                field: (*path).to_owned(),
                origin: beside(path, &origin),
                value: String::new(),
                allowed: format!("{what} (required because {because}; or set the whole URL as {WHOLE} (DATABASE_URL))"),
            }
        }));
        return None;
    };
    let url =
        PostgresUrl::from_parts(host, postgres.port, database, user, postgres.password.as_ref().map(Secret::expose));
    if url.is_none() {
        let [(path, what), ..] = NEEDED;
        let origin = source(layers, path).unwrap_or(Origin::Default);
        errors.push(SettingError { field: path.to_owned(), origin, value: mask(host), allowed: what.to_owned() });
    }
    url
}

/// Where the variable of a part would stand beside that of another one: `DB_USER` beside `DB_HOST`.
fn beside(path: &str, other: &Origin) -> Origin {
    let (Origin::Environment(other), Some(part)) = (other, field(path)) else { return Origin::Default };
    let family = |name: &str| name.split('_').next().map(str::to_owned);
    let alike = part.older_names.iter().find(|name| family(name) == family(other));
    Origin::Environment(alike.map_or_else(|| part.environment_name(), |name| (*name).to_owned()))
}

/// Says where a setting was set, if anybody set it.
fn source(layers: &Layers, path: &str) -> Option<Origin> {
    let (_, origin) = layers.find(path, field(path)?.older_names)?;
    (origin != Origin::Default).then_some(origin)
}

fn field(path: &str) -> Option<&'static Field> {
    Postgres::FIELDS.iter().find(|field| field.path == path)
}

#[cfg(test)]
mod tests {
    use super::super::Settings;
    use super::*;

    fn load(variables: &[(&str, &str)]) -> Result<Option<String>, String> {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let settings =
            Settings::load(&Layers::default().environment(variables)).map_err(|errors| errors.to_string())?;
        Ok(settings.postgres.url.map(|url| url.expose().to_owned()))
    }

    const API: [(&str, &str); 5] = [
        ("DB_HOST", "postgres"),
        ("DB_PORT", "5433"),
        ("DB_NAME", "messages_db"),
        ("DB_USER", "ingestor"),
        ("DB_PASSWORD", "s3cret"),
    ];

    #[test]
    fn either_family_of_variables_makes_the_address() {
        let address = "postgres://ingestor:s3cret@postgres:5433/messages_db";
        assert_eq!(load(&API).unwrap().as_deref(), Some(address));
        let worker = API.map(|(name, value)| {
            (if name == "DB_NAME" { "POSTGRES_DB".to_owned() } else { name.replace("DB_", "POSTGRES_") }, value)
        });
        let worker = worker.each_ref().map(|(name, value)| (name.as_str(), *value));
        assert_eq!(load(&worker).unwrap().as_deref(), Some(address));
        let both = [&worker[..], &[("DB_HOST", "other"), ("DB_USER", "api")]].concat();
        assert_eq!(load(&both).unwrap().as_deref(), Some("postgres://api:s3cret@other:5433/messages_db"));
        assert_eq!(load(&[]).unwrap(), None);
        let least = [
            ("POSTGRES_HOST", "::1"),
            ("POSTGRES_DB", "d"),
            ("POSTGRES_USER", "u"),
            ("POSTGRES_PORT", "tcp://10.0.0.1:1"),
        ];
        assert_eq!(
            load(&least).unwrap().as_deref(),
            Some("postgres://u@[::1]:5432/d"),
            "a link to a service is no port"
        );
    }

    #[test]
    fn a_whole_address_goes_before_the_parts_whatever_they_say() {
        let whole = [("DATABASE_URL", "postgres://u@h/d"), ("DB_HOST", "a b"), ("POSTGRES_PORT", "5432:5432")];
        assert_eq!(load(&whole).unwrap().as_deref(), Some("postgres://u@h/d"));
        let file = Layers::default().file("s.yaml", "postgres: {url: postgres://u@h/d}").unwrap();
        let layers = file.environment(API.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let settings = Settings::load(&layers).unwrap();
        assert_eq!(settings.postgres.url.unwrap().expose(), "postgres://u@h/d");
        let explicit = [&API[..], &[("PENSTOCK_POSTGRES_HOST", "explicit")]].concat();
        assert_eq!(load(&explicit).unwrap().as_deref(), Some("postgres://ingestor:s3cret@explicit:5433/messages_db"));
    }

    #[test]
    fn what_stands_in_a_part_stays_in_it() {
        let odd =
            [("DB_HOST", "h"), ("DB_NAME", "a/b?c#d%41"), ("DB_USER", "u:@/é"), ("DB_PASSWORD", "p@:/?#[]%41&= \\")];
        assert_eq!(
            load(&odd).unwrap().as_deref(),
            Some("postgres://u%3A%40%2F%C3%A9:p%40%3A%2F%3F%23%5B%5D%2541%26%3D%20%5C@h:5432/a%2Fb%3Fc%23d%2541")
        );
        let socket = [("DB_HOST", "/var/run/postgresql"), ("DB_NAME", "d"), ("DB_USER", "u")];
        assert_eq!(
            load(&socket).unwrap().as_deref(),
            Some("postgres://u@localhost:5432/d?host=%2Fvar%2Frun%2Fpostgresql")
        );
    }

    #[test]
    fn a_parameter_that_is_refused_is_named_with_what_to_write() {
        let said = load(&[("DATABASE_URL", "postgres://u:hunter2@h/d?ssl=require")]).unwrap_err();
        assert_eq!(
            said,
            "postgres.url (DATABASE_URL): \"postgres://u:***@h/d?ssl=require\" is not allowed; \
             allowed: no parameter ssl, which PostgreSQL does not know: write sslmode=require"
        );
        let said = load(&[("DATABASE_URL", "postgres://u@h/d?sslpassword=hunter2")]).unwrap_err();
        assert!(said.contains("sslpassword=***") && !said.contains("hunter2"), "{said}");
    }

    #[test]
    fn one_password_is_enough() {
        const FILE: (&str, &str) = ("PENSTOCK_POSTGRES_PASSWORD_FILE", "/run/password");
        const COMMAND: (&str, &str) = ("PENSTOCK_POSTGRES_PASSWORD_COMMAND", "token --for db");
        let url = ("DATABASE_URL", "postgres://u@h/d");
        for one in [FILE, COMMAND] {
            assert!(load(&[url, one]).is_ok());
            let said = load(&[("DATABASE_URL", "postgres://u:hunter2@h/d"), one]).unwrap_err();
            assert!(said.starts_with("postgres.password") && said.contains("leave that out"), "{said}");
            assert!(said.contains(one.0) && !said.contains("hunter2"), "{said}");
            assert!(load(&[&API[..], &[one]].concat()).is_err());
        }
        let said = load(&[url, FILE, COMMAND]).unwrap_err();
        assert!(said.starts_with("postgres.passwordCommand (PENSTOCK_POSTGRES_PASSWORD_COMMAND)"), "{said}");
    }

    #[test]
    fn a_part_that_is_missing_or_wrong_is_named_and_no_password_is() {
        let said = load(&[("POSTGRES_PASSWORD", "hunter2"), ("POSTGRES_DB", "d")]).unwrap_err();
        assert_eq!(
            said.lines().next().unwrap(),
            "postgres.host (POSTGRES_HOST): \"\" is not allowed; allowed: a host name, an IP address, or a socket directory \
             (required because postgres.database (POSTGRES_DB) is set; or set the whole URL as postgres.url (DATABASE_URL))"
        );
        assert!(said.lines().nth(1).unwrap().starts_with("postgres.user (POSTGRES_USER): "), "{said}");
        assert!(said.lines().count() == 2 && !said.contains("hunter2"), "{said}");
        let said = load(&[("DB_PASSWORD", "hunter2")]).unwrap_err();
        assert!(said.contains("(DB_HOST)") && said.contains("(DB_NAME)") && said.contains("(DB_USER)"), "{said}");
        assert!(said.contains("postgres.password (DB_PASSWORD) is set") && !said.contains("hunter2"), "{said}");
        for host in ["h:5432", "u:hunter2@h", "h/d", "postgres://h", "a b", ":"] {
            let said = load(&[("DB_HOST", host), ("DB_NAME", "d"), ("DB_USER", "u")]).unwrap_err();
            assert!(said.starts_with("postgres.host (DB_HOST): ") && !said.contains("hunter2"), "{said}");
        }
        let said = load(&[&API[..], &[("DB_PORT", "0")]].concat()).unwrap_err();
        assert!(said.starts_with("postgres.port (DB_PORT): \"0\" is not allowed"), "{said}");
    }
}
