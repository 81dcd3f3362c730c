//! Where a store is: a file of SQLite, a database of PostgreSQL, or in a simulation memory.
//!
//! It opens nothing.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::memory::Session;

/// Where a store is.
#[derive(Clone, PartialEq, Eq)]
pub enum Location {
    /// The file of an SQLite database.
    Sqlite(PathBuf),
    /// The URL of a PostgreSQL database, with what is needed to sign in.
    Postgres(String),
    /// A database in memory. No text names one.
    Memory(Session),
}

/// A text that names no store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{url}` is not a store of this build; expected `sqlite:PATH` or \
     `postgres://USER@HOST/DATABASE`"
)]
pub struct LocationError {
    /// As given, without a password.
    pub url: String,
}

impl FromStr for Location {
    type Err = LocationError;

    fn from_str(url: &str) -> Result<Self, LocationError> {
        let unknown = || LocationError { url: without_password(url) };
        if let Some(rest) = url.strip_prefix("sqlite:") {
            let path = rest.strip_prefix("//").unwrap_or(rest);
            return if path.is_empty() { Err(unknown()) } else { Ok(Self::Sqlite(path.into())) };
        }
        let is_postgres = url.starts_with("postgres://") || url.starts_with("postgresql://");
        if is_postgres && url::Url::parse(url).is_ok() {
            return Ok(Self::Postgres(url.to_owned()));
        }
        Err(unknown())
    }
}

/// For people: a password is left out.
impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "{}", path.display()),
            Self::Postgres(url) => f.write_str(&without_password(url)),
            Self::Memory(session) => write!(f, "{session}"),
        }
    }
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Location({self})")
    }
}

/// The user's name and password stand between `//` and the last `@` before the path.
fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let Some((user, _)) = authority.rsplit_once('@').and_then(|(user, _)| user.split_once(':'))
    else {
        return url.to_owned();
    };
    let host = authority.rsplit_once('@').map_or("", |(_, host)| host);
    format!("{scheme}://{user}:…@{host}{}", &rest[authority.len()..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_databases_are_known_by_their_schemes() {
        let sqlite: Location = "sqlite:/x/store.db".parse().unwrap();
        assert_eq!(sqlite, Location::Sqlite("/x/store.db".into()));
        assert_eq!("sqlite:///x/store.db".parse::<Location>().unwrap(), sqlite);
        let url = "postgres://gradus@db.example/gradus";
        assert_eq!(url.parse::<Location>().unwrap(), Location::Postgres(url.to_owned()));
        for other in ["mysql://x", "sqlite:", "store.db", "postgres:gradus"] {
            let error = other.parse::<Location>().unwrap_err();
            assert!(error.to_string().contains(other), "{error}");
        }
    }

    #[test]
    fn a_password_is_never_shown() {
        let url = "postgres://gradus:sec:ret@db.example/gradus?sslmode=require";
        let location: Location = url.parse().unwrap();
        let shown = "postgres://gradus:…@db.example/gradus?sslmode=require";
        assert_eq!(location.to_string(), shown);
        assert!(!format!("{location:?}").contains("ret"));
        let wrong = "mysql://gradus:secret@db.example/gradus".parse::<Location>().unwrap_err();
        assert!(!wrong.to_string().contains("secret"), "{wrong}");
    }
}
