//! The ways in which a page of another site could reach a coordinator on this machine, replayed.

use axum::body::Body;
use axum::http::Request;
use axum::http::request::Builder;
use coordinator::store::read::ReadStore;
use coordinator::store::{Artifact, Store};
use domain::ids::ContentHash;
use domain::tokens::Tokens;
use serde_json::json;

use crate::support::{SOURCE, STUDY, Served, apply_request};

fn cancel_of(builder: Builder) -> Request<Body> {
    builder.body(Body::from(r#"{"reason":""}"#)).unwrap()
}

#[tokio::test]
async fn a_rebound_name_reads_nothing() {
    // DNS rebinding: the attacker's name now points at 127.0.0.1, and the browser thinks that the
    // page and the coordinator are one site.
    let served = Served::new().await;
    for path in ["/api/v1/studies", "/"] {
        let request = Request::get(path)
            .header("host", "evil.example:8080")
            .header("origin", "http://evil.example:8080")
            .body(Body::empty())
            .unwrap();
        served.send(request).await.refused(403, "forbidden");
    }
}

#[tokio::test]
async fn another_site_changes_nothing() {
    let served = Served::new().await;
    served.apply(STUDY).await;
    for origin in ["http://evil.example", "null", "http://localhost:3000"] {
        let request = cancel_of(
            Request::post("/api/v1/studies/tiny/cancel")
                .header("host", "localhost:8080")
                .header("origin", origin)
                .header("content-type", "application/json"),
        );
        served.send(request).await.refused(403, "forbidden");
    }
    let study = served.get("/api/v1/studies/tiny").await.ok();
    assert_eq!(study["summary"]["state"], "active");
}

#[tokio::test]
async fn a_form_or_plain_text_changes_nothing() {
    let served = Served::new().await;
    served.apply(STUDY).await;
    for content_type in
        ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"]
    {
        let request = cancel_of(
            Request::post("/api/v1/studies/tiny/cancel")
                .header("host", "localhost")
                .header("content-type", content_type),
        );
        served.send(request).await.refused(415, "bad_request");
    }
    let bare = cancel_of(Request::post("/api/v1/studies/tiny/cancel").header("host", "localhost"));
    served.send(bare).await.refused(415, "bad_request");
    let study = served.get("/api/v1/studies/tiny").await.ok();
    assert_eq!(study["summary"]["state"], "active");
}

#[tokio::test]
async fn the_own_page_may_do_everything() {
    let served = Served::new().await;
    served.apply(STUDY).await;
    let request = cancel_of(
        Request::post("/api/v1/studies/tiny/cancel")
            .header("host", "127.0.0.1:8080")
            .header("origin", "http://127.0.0.1:8080")
            .header("content-type", "application/json; charset=utf-8"),
    );
    served.send(request).await.ok();
}

#[tokio::test]
async fn with_a_token_only_its_bearer_is_answered() {
    let served = Served::with(|config| config.tokens = Some(Tokens::shared("secret"))).await;
    let get = |bearer: Option<&str>| {
        let mut request = Request::get("/api/v1/studies").header("host", "study.example");
        if let Some(bearer) = bearer {
            request = request.header("authorization", format!("Bearer {bearer}"));
        }
        request.body(Body::empty()).unwrap()
    };
    let refused = served.send(get(None)).await;
    refused.refused(401, "forbidden");
    assert_eq!(refused.headers["www-authenticate"], "Bearer");
    served.send(get(Some("guess"))).await.refused(401, "forbidden");
    served.send(get(Some("secret"))).await.ok();
}

#[tokio::test]
async fn a_browser_shows_the_token_once() {
    let served = Served::with(|config| config.tokens = Some(Tokens::shared("secret"))).await;
    let wrong = served.post("/api/v1/session", &json!({ "token": "guess" })).await;
    wrong.refused(401, "forbidden");
    assert!(!wrong.headers.contains_key("set-cookie"));

    let answer = served.post("/api/v1/session", &json!({ "token": " secret\n" })).await;
    assert_eq!(answer.status.as_u16(), 204);
    let cookie = answer.headers["set-cookie"].to_str().unwrap();
    for attribute in ["HttpOnly", "SameSite=Strict", "Path=/"] {
        assert!(cookie.contains(attribute), "{cookie}");
    }
    assert!(!cookie.contains("secret"), "{cookie}");
    let session = cookie.split(';').next().unwrap();
    let get = |cookie: &str, origin: &str| {
        Request::get("/api/v1/studies")
            .header("host", "study.example")
            .header("origin", origin)
            .header("cookie", cookie)
            .body(Body::empty())
            .unwrap()
    };
    served.send(get(session, "https://study.example")).await.ok();
    served.send(get("gradus_0=0", "https://study.example")).await.refused(401, "forbidden");
    served.send(get(session, "https://evil.example")).await.refused(403, "forbidden");
}

#[tokio::test]
async fn the_token_says_whose_a_study_is_and_who_paused_it() {
    let tokens = Tokens::parse("ada one\nbob two").unwrap();
    let served = Served::with(|config| config.tokens = Some(tokens)).await;
    let hash = ContentHash::of(SOURCE);
    let source = Artifact { key: format!("sources/{hash}"), hash, n_bytes: SOURCE.len() as u64 };
    served.app.store.record_source(&source).await.unwrap();
    let post = |path: &str, bearer: &str, body: &serde_json::Value| {
        Request::post(path)
            .header("host", "study.example")
            .header("authorization", format!("Bearer {bearer}"))
            // What the program says of its user does not count beside a token with a name.
            .header("gradus-user", "eve")
            .header("content-type", "application/json")
            .body(Body::from(body.to_string()))
            .unwrap()
    };
    served.send(post("/api/v1/studies", "one", &apply_request(STUDY))).await.ok();
    served.send(post("/api/v1/studies/tiny/pause", "two", &json!({}))).await.ok();
    let get = Request::get("/api/v1/studies/tiny")
        .header("host", "study.example")
        .header("authorization", "Bearer one")
        .body(Body::empty())
        .unwrap();
    assert_eq!(served.send(get).await.ok()["summary"]["user"], "ada");
    let events = served.app.store.events_after(0, 100).await.unwrap();
    let by = |kind: &str| events.iter().find(|event| event.kind == kind).unwrap().actor.as_str();
    assert_eq!((by("study_applied"), by("study_paused")), ("user ada", "user bob"));
}

#[tokio::test]
async fn a_form_of_another_site_cannot_sign_in() {
    let served = Served::with(|config| config.tokens = Some(Tokens::shared("secret"))).await;
    let request = Request::post("/api/v1/session")
        .header("host", "study.example")
        .header("content-type", "text/plain")
        .body(Body::from(r#"{"token":"secret"}"#))
        .unwrap();
    served.send(request).await.refused(415, "bad_request");
}

#[tokio::test]
async fn a_read_only_coordinator_shows_everything_and_changes_nothing() {
    let served = Served::new().await;
    let (_, run, _) = served.prepared().await;
    let served = served.reopened_read_only().await;
    assert_eq!(served.get("/api/v1/health").await.ok()["is_read_only"], true);
    assert_eq!(served.get("/api/v1/runs").await.ok()["runs"].as_array().unwrap().len(), 2);
    served.post("/api/v1/plan", &apply_request(STUDY)).await.ok();
    let reason = json!({ "reason": "" });
    for (path, body) in [
        ("/api/v1/studies", &apply_request(STUDY)),
        ("/api/v1/studies/tiny/cancel", &reason),
        ("/api/v1/studies/tiny/retry", &json!({})),
        (&format!("/api/v1/runs/{run}/cancel"), &reason),
        (&format!("/api/v1/runs/{run}/retry"), &json!({})),
    ] {
        served.post(path, body).await.refused(403, "read_only");
    }
    served.put(&format!("/api/v1/sources/{}", "0".repeat(64)), "x").await.refused(403, "read_only");
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused() {
    let served = Served::new().await;
    let reason = json!({ "reason": "x".repeat(33 * 1024 * 1024) });
    served.apply(STUDY).await;
    let answer = served.post("/api/v1/studies/tiny/cancel", &reason).await;
    answer.refused(413, "bad_request");
}
