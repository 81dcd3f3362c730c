//! Typed calls to the coordinator's HTTP API.
//!
//! It does not find the coordinator; `locate` does.

use std::path::Path;
use std::time::Duration;

use api::{ChangeView, ErrorBody};
use domain::tokens::is_user_name;
use reqwest::{Method, RequestBuilder, Response, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A coordinator on the same machine answers at once; one far away within this.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A fit with its bootstrap may take a while.
const ANSWER_TIMEOUT: Duration = Duration::from_mins(5);

/// An answer of many lines may take long.
const LONG_ANSWER_TIMEOUT: Duration = Duration::from_hours(24);

/// A call that gave nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// Nobody answers.
    #[error(
        "no coordinator answers at {url}\n\nhint: `gradus up` starts one here; `--coordinator URL` names another"
    )]
    Unreachable {
        /// Where.
        url: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// The coordinator said no.
    #[error("{message}")]
    Refused {
        /// A stable word, see [`ErrorBody`].
        code: String,
        /// What it said.
        message: String,
    },
    /// The answer cannot be read.
    #[error("the answer of {url} is not what this build expects")]
    Answer {
        /// Of what.
        url: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// The coordinator's address is none.
    #[error("`{text}` is not an address such as http://127.0.0.1:8080")]
    Address {
        /// What was given.
        text: String,
    },
}

/// A coordinator's HTTP API.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    base: Url,
    token: Option<String>,
    user: Option<String>,
    http: reqwest::Client,
}

impl Client {
    /// The API at an address; nothing is asked yet.
    pub(crate) fn new(address: &str, token: Option<String>) -> Result<Self, ClientError> {
        let bad = || ClientError::Address { text: address.to_owned() };
        let base = Url::parse(address).map_err(|_| bad())?;
        if base.cannot_be_a_base() {
            return Err(bad());
        }
        // No proxy: the coordinator is on this machine or in this network.
        let http = reqwest::Client::builder()
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(ANSWER_TIMEOUT)
            .build()
            .map_err(|_| bad())?;
        Ok(Self { base, token, user: None, http })
    }

    /// What is asked, this user asks; by default the one whom the system names.
    pub(crate) fn used_by(self, user: Option<&str>) -> Self {
        let of_the_system = || std::env::var("USER").ok();
        let user = user.map(str::to_owned).or_else(of_the_system).filter(|name| is_user_name(name));
        Self { user, ..self }
    }

    /// Where it is, without a final slash.
    pub(crate) fn address(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    /// `GET` of the path made of `segments` under `/api/v1`.
    pub(crate) async fn get<T: DeserializeOwned>(
        &self,
        segments: &[&str],
    ) -> Result<T, ClientError> {
        self.get_with(segments, &[]).await
    }

    /// `GET` with a query.
    pub(crate) async fn get_with<T: DeserializeOwned>(
        &self,
        segments: &[&str],
        query: &[(&str, String)],
    ) -> Result<T, ClientError> {
        let url = with_query(self.url(segments), query);
        read(self.send(self.request(Method::GET, url)).await?).await
    }

    /// The lines of an answer that may be long, as they come.
    pub(crate) async fn lines(
        &self,
        segments: &[&str],
        query: &[(&str, String)],
    ) -> Result<Lines, ClientError> {
        let url = with_query(self.url(segments), query);
        // How long all of it takes is not known; each piece of it must come in time.
        let request = self.request(Method::GET, url).timeout(LONG_ANSWER_TIMEOUT);
        let response = self.send(request).await?;
        if !response.status().is_success() {
            return Err(refusal(response).await);
        }
        Ok(Lines { url: response.url().to_string(), response, come: Vec::new(), n_taken: 0 })
    }

    /// `POST` of a JSON body.
    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        segments: &[&str],
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        self.post_with(segments, &[], body).await
    }

    /// `POST` of a JSON body, with a query.
    async fn post_with<T: DeserializeOwned>(
        &self,
        segments: &[&str],
        query: &[(&str, String)],
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let url = with_query(self.url(segments), query);
        read(self.send(self.request(Method::POST, url).json(body)).await?).await
    }

    /// Asks for a change of studies or runs, or only what it would change.
    pub(crate) async fn change(
        &self,
        segments: &[&str],
        body: &impl Serialize,
        is_dry_run: bool,
    ) -> Result<ChangeView, ClientError> {
        let dry_run = [("dry_run", "true".to_owned())];
        self.post_with(segments, if is_dry_run { &dry_run } else { &[] }, body).await
    }

    /// Uploads a source file under its hash.
    pub(crate) async fn put_source(
        &self,
        hash: &str,
        path: &Path,
        file: tokio::fs::File,
    ) -> Result<(), ClientError> {
        let body = reqwest::Body::wrap_stream(tokio_util::io::ReaderStream::new(file));
        let request = self
            .request(Method::PUT, self.url(&["sources", hash]))
            .header("content-type", "application/octet-stream")
            .body(body);
        let response = self.send(request).await?;
        if response.status().is_success() {
            return Ok(());
        }
        let refused = refusal(response).await;
        Err(match refused {
            ClientError::Refused { code, message } => {
                ClientError::Refused { code, message: format!("`{}`: {message}", path.display()) }
            }
            other => other,
        })
    }

    fn url(&self, segments: &[&str]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(["api", "v1"]).extend(segments);
        }
        url
    }

    fn request(&self, method: Method, url: Url) -> RequestBuilder {
        let mut request = self.http.request(method, url);
        if let Some(user) = &self.user {
            request = request.header("gradus-user", user);
        }
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        let unreachable =
            |source| ClientError::Unreachable { url: self.address().to_owned(), source };
        request.send().await.map_err(unreachable)
    }
}

/// Lines of an answer.
#[derive(Debug)]
pub(crate) struct Lines {
    url: String,
    response: Response,
    /// What has come, and how much of it was taken.
    come: Vec<u8>,
    n_taken: usize,
}

impl Lines {
    /// The next line; none at the end. An answer that breaks off is an error, not an end.
    pub(crate) async fn next_line(&mut self) -> Result<Option<String>, ClientError> {
        loop {
            let rest = &self.come[self.n_taken..];
            if let Some(length) = rest.iter().position(|byte| *byte == b'\n') {
                let line = String::from_utf8_lossy(&rest[..length]).into_owned();
                self.n_taken += length + 1;
                return Ok(Some(line));
            }
            self.come.drain(..self.n_taken);
            self.n_taken = 0;
            let broken = |source| ClientError::Answer { url: self.url.clone(), source };
            match self.response.chunk().await.map_err(broken)? {
                Some(piece) => self.come.extend_from_slice(&piece),
                None if self.come.is_empty() => return Ok(None),
                None => self.come.push(b'\n'),
            }
        }
    }
}

fn with_query(mut url: Url, query: &[(&str, String)]) -> Url {
    if !query.is_empty() {
        url.query_pairs_mut().extend_pairs(query);
    }
    url
}

async fn read<T: DeserializeOwned>(response: Response) -> Result<T, ClientError> {
    if !response.status().is_success() {
        return Err(refusal(response).await);
    }
    let url = response.url().to_string();
    response.json().await.map_err(|source| ClientError::Answer { url, source })
}

async fn refusal(response: Response) -> ClientError {
    let status = response.status();
    match response.json::<ErrorBody>().await {
        Ok(body) => ClientError::Refused { code: body.code, message: body.message },
        Err(_) => ClientError::Refused {
            code: "internal".to_owned(),
            message: format!("the coordinator answered with status {status}"),
        },
    }
}

impl ClientError {
    /// Whether the thing that was asked for is not there.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { code, .. } if code == "not_found")
    }
}
