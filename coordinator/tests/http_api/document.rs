//! The OpenAPI document against the contract's list of routes.

use std::collections::BTreeSet;

use crate::support::Served;

const ROUTES: &[&str] = &[
    "GET /api/v1/check",
    "GET /api/v1/events",
    "GET /api/v1/explain/{target}",
    "GET /api/v1/fits",
    "GET /api/v1/fits/{fit}",
    "GET /api/v1/fits/{fit}/compare",
    "GET /api/v1/fits/{fit}/curve",
    "GET /api/v1/fits/{fit}/predict",
    "GET /api/v1/health",
    "GET /api/v1/openapi.json",
    "GET /api/v1/runs",
    "GET /api/v1/runs/{run}",
    "GET /api/v1/runs/{run}/curves",
    "GET /api/v1/runs/{run}/history",
    "GET /api/v1/runs/{run}/logs",
    "GET /api/v1/runs/{run}/points",
    "GET /api/v1/studies",
    "GET /api/v1/studies/{study}",
    "GET /api/v1/studies/{study}/curves",
    "GET /api/v1/studies/{study}/fit",
    "GET /api/v1/studies/{study}/history",
    "GET /api/v1/studies/{study}/runs",
    "GET /api/v1/workers",
    "GET /api/v1/workers/{worker}/history",
    "POST /api/v1/plan",
    "POST /api/v1/runs/{run}/cancel",
    "POST /api/v1/runs/{run}/retry",
    "POST /api/v1/session",
    "POST /api/v1/sources/missing",
    "POST /api/v1/studies",
    "POST /api/v1/studies/{study}/cancel",
    "POST /api/v1/studies/{study}/fits",
    "POST /api/v1/studies/{study}/pause",
    "POST /api/v1/studies/{study}/priority",
    "POST /api/v1/studies/{study}/resume",
    "POST /api/v1/studies/{study}/retry",
    "POST /api/v1/workers/{worker}/drain",
    "PUT /api/v1/sources/{hash}",
];

#[tokio::test]
async fn every_route_is_in_the_document_and_no_other() {
    let served = Served::new().await;
    let document = served.get("/api/v1/openapi.json").await.ok();
    let mut documented = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            documented.insert(format!("{} {path}", method.to_uppercase()));
            let text = operation["summary"].as_str().or(operation["description"].as_str());
            assert!(text.is_some_and(|text| !text.is_empty()), "{method} {path} has no text");
        }
    }
    assert_eq!(documented, ROUTES.iter().map(|route| (*route).to_owned()).collect());
}

#[tokio::test]
async fn every_type_that_the_document_names_is_in_it() {
    let served = Served::new().await;
    let document = served.get("/api/v1/openapi.json").await.ok();
    let text = document.to_string();
    let schemas = document["components"]["schemas"].as_object().unwrap();
    for reference in text.split("#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(schemas.contains_key(name), "{name}");
    }
    assert!(schemas.contains_key("FitReport") && schemas.contains_key("ErrorBody"));
}

#[tokio::test]
async fn an_unknown_route_and_a_wrong_method_are_errors_like_all_others() {
    let served = Served::new().await;
    served.get("/api/v1/trees").await.refused(404, "not_found");
    served.get("/api/v1/plan").await.refused(405, "bad_request");
}

/// The dashboard's types are generated from the committed document (`npm run generate`). After a
/// change of the API, `UPDATE_OPENAPI=1` writes it anew.
#[tokio::test]
async fn the_dashboard_is_made_for_the_document_that_is_served() {
    let file =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../dashboards/web/openapi.json");
    let served = Served::new().await;
    let document = served.get("/api/v1/openapi.json").await.ok();
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        let text = serde_json::to_string_pretty(&document).unwrap();
        std::fs::write(&file, text + "\n").unwrap();
    }
    let committed: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    assert!(committed == document, "run this test with UPDATE_OPENAPI=1, then `npm run generate`");
}
