//! The connection to OAP: settings, metadata, time limits, what an answer means, when to try again.

use std::error::Error;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::Code;
use tonic::Request;
use tonic::Response;
use tonic::Status;
use tonic::codegen::Service;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::Channel;
use tonic::transport::ClientTlsConfig;
use tonic::transport::Endpoint;
use tonic::transport::Uri;

/// How to reach OAP, and at which pace to report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `host:port` of OAP's gRPC receiver.
    pub endpoint: String,
    /// The token that OAP expects, if it expects one.
    pub authentication: Option<String>,
    /// Whether to use TLS, with the roots that this machine trusts.
    pub tls: bool,
    /// Time between two signs of life of an instance; each its own without it.
    pub heartbeat: Option<Duration>,
    /// Every how many signs of life the properties go with it; likewise.
    pub properties_factor: Option<u32>,
    /// How many segments wait at most, how many meter batches, and how many events.
    pub queue_size: usize,
    /// How long OAP may take to answer one call, and to accept a connection.
    pub call_timeout: Duration,
    /// First wait after a failure; doubles with each further one.
    pub backoff_min: Duration,
    /// Longest wait between two attempts.
    pub backoff_max: Duration,
}

impl Settings {
    /// The Python agent's pace, for an OAP without token and TLS at `endpoint` (`host:port`).
    pub fn new(endpoint: impl Into<String>) -> Self {
        Self {
            endpoint: endpoint.into(),
            authentication: None,
            tls: false,
            heartbeat: None,
            properties_factor: None,
            queue_size: 10_000,
            call_timeout: Duration::from_secs(10),
            backoff_min: Duration::from_secs(1),
            backoff_max: Duration::from_secs(60),
        }
    }
}

/// Settings that cannot work.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// Not `host:port`.
    #[error("SW_AGENT_COLLECTOR_BACKEND_SERVICES: {0:?} is not host:port, such as oap:11800")]
    Endpoint(String),
    /// Not text that metadata can hold.
    #[error("SW_AGENT_AUTHENTICATION: the token must consist of visible ASCII characters")]
    Authentication,
    /// TLS cannot be set up.
    #[error("SW_AGENT_FORCE_TLS: TLS cannot be set up ({0}): install the CA certificates of this system")]
    Tls(String),
}

/// Settings, checked, in the form that tonic wants.
pub(super) struct Target {
    address: String,
    endpoint: Endpoint,
    authentication: Option<AsciiMetadataValue>,
    timeout: Duration,
}

impl Target {
    pub(super) fn new(settings: &Settings) -> Result<Self, SettingsError> {
        let address = settings.endpoint.clone();
        let bad = || SettingsError::Endpoint(address.clone());
        let scheme = if settings.tls { "https" } else { "http" };
        let uri: Uri = format!("{scheme}://{address}").parse().map_err(|_| bad())?;
        let plain = uri.path() == "/" && uri.query().is_none() && !address.contains(['@', '/']);
        if !plain || uri.host().is_none_or(str::is_empty) || uri.port_u16().is_none_or(|port| port == 0) {
            return Err(bad());
        }
        let mut endpoint = Endpoint::from(uri);
        if settings.tls {
            let tls = ClientTlsConfig::new().with_native_roots();
            endpoint = endpoint.tls_config(tls).map_err(|e| SettingsError::Tls(causes(&e)))?;
        }
        let authentication = match &settings.authentication {
            Some(token) => Some(token.parse().map_err(|_| SettingsError::Authentication)?),
            None => None,
        };
        Ok(Self { address, endpoint, authentication, timeout: settings.call_timeout })
    }

    /// Connects once; a connection that breaks stays broken, so that nobody overlooks that OAP was away. (No pings while
    /// idle: OAP's server answers frequent ones by closing. Heartbeats with a time limit do the same work.)
    pub(super) async fn connect(&self) -> Result<Link, String> {
        let connector = Once { address: self.address.clone(), used: false };
        match timeout(self.timeout, self.endpoint.connect_with_connector(connector)).await {
            Ok(Ok(channel)) => {
                Ok(Link { channel, authentication: self.authentication.clone(), timeout: self.timeout })
            }
            Ok(Err(error)) => Err(causes(&error)),
            Err(_) => Err(format!("no answer in {:?}", self.timeout)),
        }
    }
}

/// A connection.
#[derive(Clone)]
pub(super) struct Link {
    channel: Channel,
    authentication: Option<AsciiMetadataValue>,
    timeout: Duration,
}

impl Link {
    /// For a client of one service; all of them share the connection.
    pub(super) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// `message` with what must go with every call.
    pub(super) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(token) = &self.authentication {
            request.metadata_mut().insert("authentication", token.clone());
        }
        request
    }

    /// Waits for the answer, but not for ever. What the answer asks for does not concern us.
    pub(super) async fn call<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<(), Failure> {
        match timeout(self.timeout, call).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(status)) => Err(Failure::from(status)),
            Err(_) => Err(Failure::TimedOut(format!("no answer in {:?}", self.timeout))),
        }
    }
}

/// What a call that failed means for what comes next.
#[derive(Debug)]
pub(super) enum Failure {
    /// The connection is gone; try again on a new one.
    Lost(String),
    /// OAP may or may not have taken it: sending it again could count it twice. The connection is not to be trusted.
    TimedOut(String),
    /// The token is wrong or missing; only a person can help.
    Refused(Code),
    /// OAP protects itself; wait.
    Busy,
    /// OAP does not want this very message; go on with the next.
    Rejected(String),
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let code = status.code();
        if matches!(code, Code::Unauthenticated | Code::PermissionDenied) {
            Self::Refused(code)
        } else if code == Code::ResourceExhausted {
            Self::Busy
        } else if code == Code::Unavailable || status.source().is_some() {
            Self::Lost(causes(&status))
        } else if code == Code::Unimplemented {
            Self::Rejected("Unimplemented: name OAP's gRPC port for agents (11800), not another".to_owned())
        } else {
            Self::Rejected(format!("{code:?}: {}", status.message()))
        }
    }
}

/// Connects to the first address that answers; refuses to connect again.
struct Once {
    address: String,
    used: bool,
}

impl Service<Uri> for Once {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let first = !std::mem::replace(&mut self.used, true);
        let address = self.address.clone();
        Box::pin(async move {
            if !first {
                return Err(io::Error::new(io::ErrorKind::ConnectionReset, "the connection was closed"));
            }
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok(TokioIo::new(stream))
        })
    }
}

/// Waits that double, with a fifth of chance in them so that observers of many nodes do not come at once.
pub(super) struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    pub(super) fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, next: min }
    }

    /// How long to wait now.
    pub(super) fn wait(&mut self) -> Duration {
        let wait = self.next.min(self.max);
        self.next = (wait * 2).min(self.max);
        wait.mul_f64(0.8 + 0.4 * fastrand::f64()).min(self.max)
    }

    /// It worked.
    pub(super) fn reset(&mut self) {
        self.next = self.min;
    }
}

/// An error with its causes, each said once: tonic's own words alone are "transport error".
fn causes(error: &dyn Error) -> String {
    let mut said = match error.source() {
        Some(_) => String::new(),
        None => return error.to_string(),
    };
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if words != "transport error" && words != "tcp connect error" && !said.contains(&words) {
            said.push_str(if said.is_empty() { "" } else { ": " });
            said.push_str(&words);
        }
        next = cause.source();
    }
    if said.is_empty() { error.to_string() } else { said }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_host_and_a_port() {
        for good in ["oap:11800", "127.0.0.1:11800", "[::1]:11800"] {
            assert!(Target::new(&Settings::new(good)).is_ok(), "{good}");
        }
        for bad in
            ["", "oap", "oap:0", "oap:99999", ":11800", "http://oap:11800", "oap:11800/x", "a b:1", "a:1,b:1"]
        {
            let error = Target::new(&Settings::new(bad)).err().expect(bad);
            assert!(error.to_string().contains("SW_AGENT_COLLECTOR_BACKEND_SERVICES"), "{error}");
        }
    }

    #[test]
    fn a_token_is_visible_text() {
        let mut settings = Settings::new("oap:11800");
        settings.authentication = Some("a\nb".to_owned());
        assert!(matches!(Target::new(&settings), Err(SettingsError::Authentication)));
    }

    #[tokio::test]
    async fn a_closed_port_is_called_by_its_name() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound").to_string();
        drop(listener);
        let target = Target::new(&Settings::new(address)).expect("good settings");
        let cause = target.connect().await.err().expect("nobody listens");
        assert_eq!(cause, "Connection refused (os error 111)");
    }

    #[tokio::test]
    async fn tls_can_be_set_up() {
        let settings = Settings { tls: true, ..Settings::new("oap:11800") };
        assert!(!matches!(
            Target::new(&settings),
            Err(SettingsError::Endpoint(_) | SettingsError::Authentication)
        ));
    }

    #[test]
    fn waits_double_up_to_the_longest() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(5));
        for about in [1.0, 2.0, 4.0, 5.0, 5.0] {
            let wait = backoff.wait().as_secs_f64();
            assert!(
                (about * 0.79..=5.0_f64.min(about * 1.21)).contains(&wait),
                "{wait} is not about {about}"
            );
        }
        backoff.reset();
        assert!(backoff.wait() < Duration::from_secs(2));
    }
}
