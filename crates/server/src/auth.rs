//! Access to the server: Host and Origin are checked first, so that no foreign web page can use it, then the key.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use kiln_api::ProblemCode;

use crate::{connections::Connection, key::FarmKey, problem::ProblemResponse};

/// The routes that answer without a key; `GET` and `HEAD` only.
pub(crate) const PUBLIC: [&str; 3] = ["/api/v1/info", "/api/openapi.json", "/healthz"];

/// The key and the host names that requests must show.
#[derive(Debug)]
pub(crate) struct Gate {
    pub key: FarmKey,
    pub hosts: Hosts,
}

/// The middleware in front of every route, including the WebSocket's and unknown ones.
pub(crate) async fn guard(State(gate): State<Arc<Gate>>, request: Request, next: Next) -> Response {
    let admitted = gate.admit(request.method(), request.uri().path(), request.headers());
    let connection = request.extensions().get::<Arc<Connection>>();
    let admitted = match (admitted, connection) {
        (Ok(Access::Key), Some(connection)) => connection.authenticate(),
        (admitted, _) => admitted.map(drop),
    };
    match admitted {
        Ok(()) => next.run(request).await,
        Err(fault) => {
            let is_busy = fault.0.code == ProblemCode::Busy;
            let mut response = fault.into_response();
            if is_busy {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            response
        }
    }
}

/// The ground on which a request is admitted.
enum Access {
    Key,
    /// The route needs no key.
    Public,
}

impl Gate {
    fn admit(&self, method: &Method, path: &str, headers: &HeaderMap) -> Result<Access, ProblemResponse> {
        let host = self.hosts.check(headers)?;
        check_origin(headers, host)?;
        if bearer(headers).is_some_and(|key| self.key.matches(key)) {
            return Ok(Access::Key);
        }
        if PUBLIC.contains(&path) && (method == Method::GET || method == Method::HEAD) {
            return Ok(Access::Public);
        }
        Err(ProblemResponse::new(
            ProblemCode::Unauthorized,
            if headers.contains_key(header::AUTHORIZATION) {
                "This is not the farm's key; it is in farm.key in the server's data folder, and goes into KILN_KEY or --key."
            } else {
                "A key is needed: send “Authorization: Bearer KEY” with the key in farm.key in the server's data folder."
            },
        ))
    }
}

/// The key of `Authorization: Bearer KEY`.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = only(headers, header::AUTHORIZATION)?.as_bytes();
    let (scheme, key) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| key.trim_ascii())
}

/// Returns the header's value if the header occurs exactly once.
fn only(headers: &HeaderMap, name: header::HeaderName) -> Option<&HeaderValue> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    values.next().is_none().then_some(first)
}

/// The names under which the server answers. A page of another site that points its own name at this machine
/// (DNS rebinding) sends that name as Host, and is refused.
#[derive(Debug)]
pub(crate) struct Hosts {
    names: Vec<String>,
    addresses: Vec<IpAddr>,
    /// The server listens on every address of the machine, so any address is right: rebinding needs a name.
    any_address: bool,
}

impl Hosts {
    /// Takes further names in `allowed`, without port.
    pub(crate) fn new(listen: SocketAddr, allowed: &[String]) -> Self {
        let ip = listen.ip();
        let mut names = vec!["localhost".to_owned()];
        if !ip.is_loopback() {
            let machine = rustix::system::uname().nodename().to_string_lossy().to_lowercase();
            names.push(format!("{machine}.local"));
            names.push(machine);
        }
        names.extend(allowed.iter().map(|name| name.to_lowercase()));
        Self {
            names,
            addresses: vec![IpAddr::from([127, 0, 0, 1]), "::1".parse().unwrap_or(ip), ip],
            any_address: ip.is_unspecified(),
        }
    }

    /// Checks the header `Host`, and returns it for the comparison with `Origin`.
    fn check<'a>(&self, headers: &'a HeaderMap) -> Result<&'a str, ProblemResponse> {
        let host = only(headers, header::HOST).and_then(|value| value.to_str().ok()).ok_or_else(|| {
            ProblemResponse::new(
                ProblemCode::Forbidden,
                "The request must carry one Host header that names this server.",
            )
        })?;
        let name = host_name(host);
        let known = match name.parse::<IpAddr>() {
            Ok(address) => self.any_address || self.addresses.contains(&address),
            Err(_) => self.names.iter().any(|known| known.eq_ignore_ascii_case(name)),
        };
        if known {
            return Ok(host);
        }
        let shown: String = name.chars().take(80).flat_map(char::escape_default).collect();
        Err(ProblemResponse::new(
            ProblemCode::Forbidden,
            format!(
                "This server does not answer to the name “{shown}”; use its address, or start it with --allowed-host {shown}."
            ),
        ))
    }
}

/// Removes the port and, for IPv6, the brackets.
fn host_name(host: &str) -> &str {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split_once(']').map_or(rest, |(address, _)| address);
    }
    host.rsplit_once(':').map_or(host, |(name, _)| name)
}

/// Refuses requests that the page of another site sends: browsers name the site in Origin.
fn check_origin(headers: &HeaderMap, host: &str) -> Result<(), ProblemResponse> {
    let foreign = || {
        ProblemResponse::new(ProblemCode::Forbidden, "Web pages of other sites may not speak to this server.")
    };
    if !headers.contains_key(header::ORIGIN) {
        return Ok(());
    }
    let origin = only(headers, header::ORIGIN).and_then(|value| value.to_str().ok()).ok_or_else(foreign)?;
    let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    if authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host)) {
        Ok(())
    } else {
        Err(foreign())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(listen: &str, allowed: &[&str]) -> Hosts {
        let allowed: Vec<String> = allowed.iter().map(|&name| name.to_owned()).collect();
        Hosts::new(listen.parse().unwrap(), &allowed)
    }

    fn headers(pairs: &[(header::HeaderName, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(name, value.parse().unwrap());
        }
        map
    }

    #[test]
    fn answers_to_its_own_names_only() {
        let check = |hosts: &Hosts, host: &str| hosts.check(&headers(&[(header::HOST, host)])).is_ok();
        let local = hosts("127.0.0.1:8765", &["Farm.Example"]);
        for good in ["localhost", "LOCALHOST:8765", "127.0.0.1:1", "[::1]:8765", "farm.example:80"] {
            assert!(check(&local, good), "{good}");
        }
        for bad in ["evil.example", "evil.example:8765", "10.0.0.1", "localhost.evil.example", "", "[", ":"] {
            assert!(!check(&local, bad), "{bad}");
        }
        let everywhere = hosts("0.0.0.0:8765", &[]);
        assert!(check(&everywhere, "10.0.0.1:8765"));
        assert!(!check(&everywhere, "evil.example"));
        assert!(local.check(&HeaderMap::new()).is_err());
        assert!(local.check(&headers(&[(header::HOST, "localhost"), (header::HOST, "evil")])).is_err());
    }

    #[test]
    fn only_its_own_origin() {
        let check =
            |origin: &str| check_origin(&headers(&[(header::ORIGIN, origin)]), "localhost:8765").is_ok();
        assert!(check("http://localhost:8765"));
        for bad in ["null", "http://evil.example", "http://localhost:9", "file://", "localhost:8765"] {
            assert!(!check(bad), "{bad}");
        }
        assert!(check_origin(&HeaderMap::new(), "localhost").is_ok());
    }

    #[test]
    fn bearer_keys() {
        let check = |value: &str| bearer(&headers(&[(header::AUTHORIZATION, value)])).map(<[u8]>::to_vec);
        assert_eq!(check("Bearer kiln_1"), Some(b"kiln_1".to_vec()));
        assert_eq!(check("bearer kiln_1"), Some(b"kiln_1".to_vec()));
        assert_eq!(check("Basic kiln_1"), None);
        assert_eq!(check("Bea"), None);
    }
}
