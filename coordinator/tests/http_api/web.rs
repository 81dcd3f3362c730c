//! The web application: its pages, whether they were built or not.

use crate::support::Served;

#[tokio::test]
async fn every_page_is_html_with_a_policy_that_allows_no_inline_script() {
    let served = Served::new().await;
    for path in ["/", "/studies/tiny", "/runs/r_1"] {
        let answer = served.get(path).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.headers["content-type"], "text/html; charset=utf-8");
        let policy = answer.headers["content-security-policy"].to_str().unwrap();
        assert!(policy.contains("script-src 'self';"), "{policy}");
        assert_eq!(answer.headers["x-content-type-options"], "nosniff");
        // A page that is cached for long would name files that the next build no longer has.
        assert!(matches!(answer.headers["cache-control"].to_str(), Ok("no-cache" | "no-store")));
    }
}

#[tokio::test]
async fn a_file_that_is_not_there_is_not_a_page() {
    let served = Served::new().await;
    served.get("/assets/index-0000.js").await.refused(404, "not_found");
}
