//! Where an index on a server is: its address, and the schema in it.

use std::path::PathBuf;
use std::time::Duration;

use postgres::config::{Host, SslMode};
use postgres::{Client, Config, NoTls};

use crate::error::IndexError;
use crate::store::path::without_password;

/// The schema of an index where none is named.
const SCHEMA: &str = "omniburn";
/// How long a server is waited for.
const PATIENCE: Duration = Duration::from_secs(15);

/// An address taken apart.
#[derive(Debug, Clone)]
pub(super) struct Address {
    pub config: Config,
    pub schema: String,
    /// Without a password, for people.
    pub place: PathBuf,
}

impl Address {
    /// Reads `postgres://[user[:password]@][host[:port]]/database[?schema=name&…]`; other settings are those of libpq.
    ///
    /// # Errors
    /// [`IndexError::Unsuitable`] for an address that is none, and a server elsewhere that would be spoken to in the clear.
    pub fn parse(text: &str) -> Result<Self, IndexError> {
        let (base, settings) = text.split_once('?').unwrap_or((text, ""));
        let mut schema = SCHEMA.to_string();
        let mut kept = Vec::new();
        for setting in settings.split('&').filter(|setting| !setting.is_empty()) {
            match setting.split_once('=') {
                Some(("schema", name)) => name.clone_into(&mut schema),
                _ => kept.push(setting),
            }
        }
        let place = PathBuf::from(without_password(text));
        let unsuitable = |what: String| IndexError::Unsuitable { place: place.clone(), what };
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if schema.is_empty() || schema.len() > 48 || !schema.chars().all(plain) || schema.starts_with("pg_") {
            let rule = "expected at most 48 of a-z, 0-9 and _, and not pg_ first";
            return Err(unsuitable(format!("`{schema}` is no schema of an index: {rule}")));
        }
        let address = if kept.is_empty() { base.to_string() } else { format!("{base}?{}", kept.join("&")) };
        let mut config: Config = address.parse().map_err(|e: postgres::Error| unsuitable(chain(&e)))?;
        match config.get_ssl_mode() {
            SslMode::Disable => {}
            SslMode::Prefer if config.get_hosts().iter().all(is_here) => {}
            SslMode::Prefer => {
                let way = "reach it through a tunnel, or say sslmode=disable where the network may read along";
                return Err(unsuitable(format!(
                    "this build speaks no TLS, and the server is on another machine: {way}"
                )));
            }
            _ => return Err(unsuitable("this build speaks no TLS: sslmode=require cannot be had".into())),
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(PATIENCE);
        }
        config.ssl_mode(SslMode::Disable);
        config.application_name(&format!("omniburn {}", std::process::id()));
        Ok(Self { config, schema, place })
    }

    /// Connects.
    ///
    /// # Errors
    /// [`IndexError::Server`].
    pub fn connect(&self) -> Result<Client, IndexError> {
        self.config.connect(NoTls).map_err(|e| IndexError::Server {
            place: self.place.clone(),
            why: chain(&e),
            source: Box::new(e),
        })
    }
}

/// A server of this machine.
fn is_here(host: &Host) -> bool {
    match host {
        #[cfg(unix)]
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
        }
    }
}

/// An error with its causes, once each.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_apart_and_shown_without_its_password() {
        let address = Address::parse("postgres://me:secret@localhost:5433/files?schema=work&password=other").unwrap();
        assert_eq!(address.schema, "work");
        assert_eq!(address.place.to_str(), Some("postgres://me@localhost:5433/files?schema=work"));
        assert_eq!(Address::parse("postgres://localhost/files").unwrap().schema, "omniburn");
        assert!(Address::parse("postgres:///files?host=/run/postgresql").is_ok());
    }

    #[test]
    fn what_cannot_be_had_is_refused_by_name() {
        let why = |text: &str| Address::parse(text).map(drop).unwrap_err().to_string();
        assert!(why("postgres://db.example.org/files").contains("TLS"));
        assert!(why("postgres://localhost/files?sslmode=require").contains("TLS"));
        assert!(why("postgres://localhost/files?schema=A\"B").contains("schema"));
        assert!(!why("postgres://me:secret@localhost:port/files").contains("secret"));
        assert!(Address::parse("postgres://db.example.org/files?sslmode=disable").is_ok());
    }
}
