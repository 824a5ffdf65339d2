//! What the log says about the connection: changes, once each, never a line per request.

use std::time::Duration;

use tokio::time::Instant;
use tracing::error;
use tracing::info;
use tracing::warn;

use crate::report::grpc::Failure;
use crate::report::grpc::Settings;

/// How often messages that OAP rejects may be mentioned.
const REPEAT: Duration = Duration::from_secs(60);

/// Remembers what was said last.
pub(super) struct Journal {
    endpoint: String,
    token: bool,
    queue_size: usize,
    state: State,
    rejected: u64,
    rejected_at: Option<Instant>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Starting,
    Connected,
    Unreachable,
    Refused,
    Busy,
}

impl Journal {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            endpoint: settings.endpoint.clone(),
            token: settings.authentication.is_some(),
            queue_size: settings.queue_size,
            state: State::Starting,
            rejected: 0,
            rejected_at: None,
        }
    }

    /// There is a connection. After trouble only an answer counts: a port that accepts and closes would otherwise fill the
    /// log.
    pub(super) fn connected(&mut self) {
        if self.state == State::Starting {
            self.answered();
        }
    }

    /// OAP answered a call.
    pub(super) fn answered(&mut self) {
        if self.enter(State::Connected) {
            info!("connected to OAP {}", self.endpoint);
        }
    }

    /// There is no connection.
    pub(super) fn unreachable(&mut self, cause: &str) {
        if self.enter(State::Unreachable) {
            let (endpoint, size) = (&self.endpoint, self.queue_size);
            warn!("cannot reach OAP {endpoint}: {cause}; retrying, up to {size} segments wait");
        }
    }

    /// There is a connection, but OAP does not take anything.
    pub(super) fn waiting(&mut self, failure: &Failure) {
        let endpoint = &self.endpoint;
        match failure {
            Failure::Refused(code) => {
                let remedy = if self.token {
                    "SW_AGENT_AUTHENTICATION is not the token that OAP expects"
                } else {
                    "set SW_AGENT_AUTHENTICATION to the token that OAP expects"
                };
                if self.state != State::Refused {
                    error!("OAP {endpoint} refuses the observer ({code:?}): {remedy}");
                }
                self.enter(State::Refused);
            }
            Failure::Busy => {
                if self.state != State::Busy {
                    warn!("OAP {endpoint} is overloaded (ResourceExhausted); waiting");
                }
                self.enter(State::Busy);
            }
            Failure::Lost(cause) | Failure::TimedOut(cause) | Failure::Rejected(cause) => {
                let cause = cause.clone();
                self.unreachable(&cause);
            }
        }
    }

    /// OAP did not want one message.
    pub(super) fn rejected(&mut self, what: &str, cause: &str) {
        self.rejected += 1;
        let now = Instant::now();
        if self.rejected_at.is_none_or(|at| now.duration_since(at) >= REPEAT) {
            let (endpoint, n) = (&self.endpoint, self.rejected);
            warn!("OAP {endpoint} rejected {what}: {cause} ({n} such since last said)");
            self.rejected = 0;
            self.rejected_at = Some(now);
        }
    }

    fn enter(&mut self, state: State) -> bool {
        std::mem::replace(&mut self.state, state) != state
    }
}
