//! Who may ask: the checks before every handler, so that a web page of another site can neither
//! read nor change anything on a coordinator that listens on this machine.
//! It reads no body and knows no route but by its path.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use domain::tokens::{Tokens, is_user_name};

use super::error::ApiError;
use crate::actor::{Actor, USER_HEADER, acting};
use crate::auth::Caller;
use crate::detached::to_the_end;
use crate::{App, auth};

/// What is called with POST because of its body, and changes nothing.
const READS_WITH_A_BODY: [&str; 2] = ["/api/v1/plan", "/api/v1/sources/missing"];

/// Where the token itself is shown.
const SIGN_IN: &str = "/api/v1/session";

/// The uploads; everything else that changes something takes JSON.
const UPLOADS: &str = "/api/v1/sources/";

/// What the checks need to know of the coordinator.
#[derive(Debug, Clone, Copy)]
struct Rules<'a> {
    tokens: Option<&'a Tokens>,
    is_read_only: bool,
}

/// Checks a request, then passes it on; what it does is done for who asks.
pub(super) async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let rules = Rules { tokens: app.config.tokens.as_ref(), is_read_only: app.is_read_only };
    let checked = check(rules, request.method(), request.uri().path(), request.headers());
    let is_look = request.method() == Method::GET || request.method() == Method::HEAD;
    let mut response = match checked {
        Ok(caller) => {
            let answer = acting(user(caller, request.headers()), next.run(request));
            // A caller that goes away ends a look, but no change: the leader must hear of it.
            if is_look { answer.await } else { to_the_end(answer).await }
        }
        Err(refusal) => refusal.into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

fn check(
    rules: Rules<'_>,
    method: &Method,
    path: &str,
    headers: &HeaderMap,
) -> Result<Caller, ApiError> {
    let host = text(headers, &header::HOST);
    check_host(rules, host)?;
    check_origin(host, text(headers, &header::ORIGIN))?;
    if !path.starts_with("/api/") {
        // The web application itself holds no data.
        return Ok(Caller::Unnamed);
    }
    let is_sign_in = path == SIGN_IN;
    let caller = match caller(rules.tokens, headers) {
        Some(caller) => caller,
        None if is_sign_in => Caller::Unnamed,
        None => return Err(ApiError::Unauthorized),
    };
    if method == Method::GET || method == Method::HEAD {
        return Ok(caller);
    }
    if rules.is_read_only && !is_sign_in && !READS_WITH_A_BODY.contains(&path) {
        return Err(ApiError::ReadOnly);
    }
    check_content_type(method, path, text(headers, &header::CONTENT_TYPE))?;
    Ok(caller)
}

/// Who has shown a token, now or when its session began.
fn caller(tokens: Option<&Tokens>, headers: &HeaderMap) -> Option<Caller> {
    auth::bearer(tokens, text(headers, &header::AUTHORIZATION))
        .or_else(|| auth::session(tokens, text(headers, &header::COOKIE)))
}

/// Whose request it is: the owner of the token, else who the program says.
fn user(caller: Caller, headers: &HeaderMap) -> Actor {
    let said = || headers.get(USER_HEADER).and_then(|value| value.to_str().ok());
    match caller {
        Caller::Named(name) => Actor::User(name),
        Caller::Unnamed => {
            Actor::User(said().filter(|name| is_user_name(name)).unwrap_or_default().to_owned())
        }
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// A name that an attacker's DNS points here reaches the socket but not this name. With a token
/// the name does not matter: no other site has it.
fn check_host(rules: Rules<'_>, host: Option<&str>) -> Result<(), ApiError> {
    if rules.tokens.is_some() {
        return Ok(());
    }
    match host {
        Some(host) if is_loopback(host) => Ok(()),
        Some(host) => Err(ApiError::Forbidden(format!(
            "`{host}` is not an address of this machine; ask `127.0.0.1` or `localhost`"
        ))),
        None => Err(ApiError::Forbidden("the header `Host` is missing".to_owned())),
    }
}

fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or("", |(address, _)| address),
        None => host.split_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// A browser names the site whose page sends the request; other programs send nothing.
fn check_origin(host: Option<&str>, origin: Option<&str>) -> Result<(), ApiError> {
    let Some(origin) = origin else { return Ok(()) };
    // A proxy may have taken off the TLS, so that the scheme alone may differ.
    let site = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    match (site, host) {
        (Some(site), Some(host)) if site.eq_ignore_ascii_case(host) => Ok(()),
        _ => Err(ApiError::Forbidden(format!("`{origin}` is another site"))),
    }
}

/// A page of another site can send forms and plain text without asking, but not these types.
fn check_content_type(
    method: &Method,
    path: &str,
    content_type: Option<&str>,
) -> Result<(), ApiError> {
    let is_upload = method == Method::PUT && path.starts_with(UPLOADS);
    let expected = if is_upload { "application/octet-stream" } else { "application/json" };
    let given = content_type.unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case(expected) {
        Ok(())
    } else {
        Err(ApiError::ContentType { expected, given: given.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: Rules<'static> = Rules { tokens: None, is_read_only: false };

    fn asked(rules: Rules<'_>, method: &Method, path: &str, headers: &[(&str, &str)]) -> bool {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect();
        check(rules, method, path, &headers).is_ok()
    }

    #[test]
    fn only_names_of_this_machine_are_served() {
        for host in ["127.0.0.1:80", "localhost", "LOCALHOST:1", "[::1]:80", "127.9.9.9"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["evil.example", "127.0.0.1.evil.example", "localhost.evil", "10.0.0.1", ""] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn another_port_of_this_machine_is_another_site() {
        let host = ("host", "localhost:80");
        let get = |origin| asked(OPEN, &Method::GET, "/api/v1/runs", &[host, ("origin", origin)]);
        assert!(get("http://localhost:80"));
        assert!(!get("http://localhost:81"));
        assert!(!get("null"));
    }

    #[test]
    fn a_token_replaces_the_check_of_the_name() {
        let tokens = Tokens::shared("t");
        let rules = Rules { tokens: Some(&tokens), is_read_only: false };
        let bearer = ("authorization", "Bearer t");
        let host = ("host", "study.example");
        assert!(asked(rules, &Method::GET, "/api/v1/runs", &[host, bearer]));
        assert!(!asked(rules, &Method::GET, "/api/v1/runs", &[host]));
        assert!(asked(rules, &Method::GET, "/", &[host]));
    }

    #[test]
    fn a_read_only_coordinator_still_plans() {
        let rules = Rules { tokens: None, is_read_only: true };
        let headers = [("host", "localhost"), ("content-type", "application/json")];
        assert!(asked(rules, &Method::POST, "/api/v1/plan", &headers));
        assert!(!asked(rules, &Method::POST, "/api/v1/studies", &headers));
    }

    #[test]
    fn the_token_says_who_asks_and_else_the_program_does() {
        let headers: HeaderMap =
            [(USER_HEADER.parse().unwrap(), "bob".parse().unwrap())].into_iter().collect();
        assert_eq!(user(Caller::Unnamed, &headers), Actor::User("bob".into()));
        assert_eq!(user(Caller::Named("ada".into()), &headers), Actor::User("ada".into()));
        assert_eq!(user(Caller::Unnamed, &HeaderMap::new()), Actor::User(String::new()));
    }
}
