//! The connection to a server: its address, its key, and requests.

use std::{fmt, net::IpAddr, sync::Arc, time::Duration};

use kiln_api::{BUILD, Info, Me, OLDEST_PROTOCOL, PROBLEM_JSON, PROTOCOL, Problem, ProblemCode};
use reqwest::{Method, RequestBuilder, Response, StatusCode, header};
use serde::{Serialize, de::DeserializeOwned};

use crate::{ClientError, error::innermost, routes};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Silence for this long counts as a lost connection. The stream of events sends comments more often.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// A server and the key to it. Cheap to clone; connections are shared and reused.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    /// Without a slash at the end.
    base: String,
    key: String,
    http: reqwest::Client,
    /// For uploads: nothing is read while a large body is sent, which is not silence.
    bulk: reqwest::Client,
    /// The address of this machine that all connections come from, if it is chosen.
    from: Option<IpAddr>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("base", &self.inner.base).field("key", &"(hidden)").finish()
    }
}

impl Client {
    /// Returns a client of the server at `base_url` (`http://host:port`). Nothing is sent yet.
    pub fn new(base_url: impl AsRef<str>, key: impl Into<String>) -> Result<Self, ClientError> {
        Self::build(base_url.as_ref(), key.into(), None)
    }

    /// Returns a client whose connections come from one address of this machine.
    pub fn from_address(
        base_url: impl AsRef<str>,
        key: impl Into<String>,
        address: IpAddr,
    ) -> Result<Self, ClientError> {
        Self::build(base_url.as_ref(), key.into(), Some(address))
    }

    fn build(base_url: &str, key: String, from: Option<IpAddr>) -> Result<Self, ClientError> {
        let given = base_url.trim();
        let bad = |why: &str| ClientError::BadUrl { url: given.to_owned(), why: why.to_owned() };
        let with_scheme = if given.contains("://") { given.to_owned() } else { format!("http://{given}") };
        let parsed = reqwest::Url::parse(&with_scheme).map_err(|error| bad(&error.to_string()))?;
        if parsed.scheme() != "http" {
            return Err(bad("only http is supported"));
        }
        if parsed.host_str().is_none_or(str::is_empty) {
            return Err(bad("it names no host"));
        }
        if parsed.query().is_some() || parsed.fragment().is_some() || !matches!(parsed.path(), "" | "/") {
            return Err(bad("it must end after the port"));
        }
        let base = parsed.as_str().trim_end_matches('/').to_owned();
        let key = key.trim().to_owned();
        if header::HeaderValue::from_str(&format!("Bearer {key}")).is_err() {
            return Err(ClientError::WrongKey { url: base });
        }
        let build = |read: Option<Duration>| {
            let mut builder = reqwest::Client::builder()
                .user_agent(concat!("kiln/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(CONNECT_TIMEOUT)
                .local_address(from)
                // The farm is on the local network, which a proxy for the web does not reach.
                .no_proxy()
                .redirect(reqwest::redirect::Policy::none())
                // Shorter than the server keeps an idle connection, so that none is reused as it closes.
                .pool_idle_timeout(Duration::from_secs(30))
                .tcp_nodelay(true);
            if let Some(read) = read {
                builder = builder.read_timeout(read);
            }
            builder.build().map_err(|error| bad(&innermost(&error)))
        };
        let (http, bulk) = (build(Some(READ_TIMEOUT))?, build(None)?);
        Ok(Self { inner: Arc::new(Inner { base, key, http, bulk, from }) })
    }

    /// Returns the server's address, without a slash at the end.
    pub fn url(&self) -> &str {
        &self.inner.base
    }

    /// Returns the address of this machine that connections come from, if it is chosen.
    pub(crate) fn from(&self) -> Option<IpAddr> {
        self.inner.from
    }

    /// Returns the key, for a worker that is started beside this client.
    pub fn key(&self) -> &str {
        &self.inner.key
    }

    /// Reads the server's public description.
    pub async fn info(&self) -> Result<Info, ClientError> {
        let url = self.inner.base.clone();
        let response = self.raw(self.request(Method::GET, &routes::info())).await?;
        let not_kiln = || ClientError::NotKiln { url: url.clone() };
        if !response.status().is_success() {
            return Err(not_kiln());
        }
        let body = response.bytes().await.map_err(|error| self.unreachable(&error))?;
        let info: Info = serde_json::from_slice(&body).map_err(|_| not_kiln())?;
        if info.program == "kiln" { Ok(info) } else { Err(not_kiln()) }
    }

    /// Checks that the server can be reached, speaks a protocol of this client, and accepts the key.
    pub async fn check(&self) -> Result<Me, ClientError> {
        let info = self.info().await?;
        if let Some(error) = version_gap(&self.inner.base, &info) {
            return Err(error);
        }
        self.get(&routes::me()).await
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = format!("{}{path}", self.inner.base);
        self.inner.http.request(method, url).bearer_auth(&self.inner.key)
    }

    pub(crate) fn bulk_request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = format!("{}{path}", self.inner.base);
        self.inner.bulk.request(method, url).bearer_auth(&self.inner.key)
    }

    pub(crate) fn unreachable(&self, error: &reqwest::Error) -> ClientError {
        let url = self.inner.base.clone();
        let why = if error.is_timeout() { "no answer in time".to_owned() } else { innermost(error) };
        if error.is_connect() || error.is_timeout() {
            ClientError::Unreachable { url, why }
        } else {
            ClientError::Broken { url, why }
        }
    }

    async fn raw(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        request.send().await.map_err(|error| self.unreachable(&error))
    }

    /// Sends a request, and turns a refusal into an error.
    pub(crate) async fn send(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        let response = self.raw(request).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(self.refusal(response).await)
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.answered(self.request(Method::GET, path)).await
    }

    pub(crate) async fn post<B: Serialize + ?Sized, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T, ClientError> {
        self.answered(self.request(Method::POST, path).json(body)).await
    }

    pub(crate) async fn answered<T: DeserializeOwned>(
        &self,
        request: RequestBuilder,
    ) -> Result<T, ClientError> {
        let response = self.send(request).await?;
        self.decode(response).await
    }

    /// Sends a request whose answer has no body that matters.
    pub(crate) async fn tell(&self, method: Method, path: &str) -> Result<(), ClientError> {
        self.send(self.request(method, path)).await.map(drop)
    }

    pub(crate) async fn decode<T: DeserializeOwned>(&self, response: Response) -> Result<T, ClientError> {
        let body = response.bytes().await.map_err(|error| self.unreachable(&error))?;
        match serde_json::from_slice(&body) {
            Ok(value) => Ok(value),
            Err(error) => Err(self.misunderstood(error.to_string()).await),
        }
    }

    async fn refusal(&self, response: Response) -> ClientError {
        let status = response.status();
        let is_problem = response
            .headers()
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|kind| kind.starts_with(PROBLEM_JSON) || kind.starts_with("application/json"));
        let body = response.bytes().await.unwrap_or_default();
        let problem = is_problem.then(|| serde_json::from_slice::<Problem>(&body).ok()).flatten();
        match problem {
            Some(problem) if problem.code == ProblemCode::Unauthorized => {
                ClientError::WrongKey { url: self.inner.base.clone() }
            }
            Some(problem) => ClientError::Problem(Box::new(problem)),
            None if status == StatusCode::UNAUTHORIZED => {
                ClientError::WrongKey { url: self.inner.base.clone() }
            }
            None => self.misunderstood(format!("status {status} without a reason")).await,
        }
    }

    /// Returns the error for an answer that makes no sense: it usually comes from a server of another version.
    async fn misunderstood(&self, why: String) -> ClientError {
        let url = self.inner.base.clone();
        match self.info().await {
            Ok(info) => version_gap(&url, &info).unwrap_or_else(|| {
                let why = if info.build == BUILD {
                    why
                } else {
                    format!("it is version {}, this is {BUILD}: {why}", info.build)
                };
                ClientError::Broken { url, why }
            }),
            Err(error) => error,
        }
    }
}

/// Returns the error if the two versions have no protocol in common.
fn version_gap(url: &str, info: &Info) -> Option<ClientError> {
    let Info { build, protocol, oldest_protocol, .. } = info;
    if *oldest_protocol > PROTOCOL {
        return Some(ClientError::OtherVersion(format!(
            "this kiln ({BUILD}, protocol {PROTOCOL}) is older than the server {url} ({build}, protocol \
             {oldest_protocol} or later); update this kiln"
        )));
    }
    if *protocol < OLDEST_PROTOCOL {
        return Some(ClientError::OtherVersion(format!(
            "the server {url} ({build}, protocol {protocol}) is older than this kiln ({BUILD}, protocol \
             {OLDEST_PROTOCOL} or later); update the server"
        )));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let url = |text: &str| Client::new(text, "k").map(|client| client.url().to_owned());
        assert_eq!(url("http://a:1/").unwrap(), "http://a:1");
        assert_eq!(url("10.0.0.1:9500").unwrap(), "http://10.0.0.1:9500");
        for bad in ["", "http://", "https://a:1", "ftp://a", "http://a/b", "http://a?b", "a b"] {
            assert!(matches!(url(bad), Err(ClientError::BadUrl { .. })), "{bad}");
        }
    }

    #[test]
    fn the_key_is_not_shown() {
        let client = Client::new("a:1", "secret").unwrap();
        assert!(!format!("{client:?}").contains("secret"));
    }

    #[test]
    fn says_which_side_is_older() {
        let gap = |protocol, oldest_protocol| {
            let info = Info { program: "kiln".into(), build: "9".into(), protocol, oldest_protocol };
            version_gap("u", &info).map(|error| error.to_string())
        };
        assert_eq!(gap(PROTOCOL, OLDEST_PROTOCOL), None);
        assert_eq!(gap(PROTOCOL + 1, PROTOCOL), None);
        assert!(gap(PROTOCOL + 2, PROTOCOL + 1).unwrap().contains("update this kiln"));
        assert!(gap(OLDEST_PROTOCOL - 1, 0).unwrap().contains("update the server"));
    }
}
