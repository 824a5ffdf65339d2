//! What happened to an instance: SkyWalking's events, start and end under one uuid.
use std::sync::Arc;

/// What kind of thing happened; the name that OAP shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EventName {
    /// Forked, then ready.
    Start,
    /// Asked to end or ending by itself, then gone; says the cause.
    Exit,
    /// HUP, then every worker of before is gone.
    Reload,
    /// USR2, then promoted or rolled back.
    Upgrade,
    /// Does not boot, or does not beat, then does so again or is gone.
    Stuck,
    /// Workers die before they are ready, again and again.
    CrashLoop,
    /// The workers of a master do not keep up, then do so again.
    Saturated,
}

impl EventName {
    /// As OAP gets it.
    pub fn as_str(self) -> &'static str {
        match self {
            EventName::Start => "Start",
            EventName::Exit => "Exit",
            EventName::Reload => "Reload",
            EventName::Upgrade => "Upgrade",
            EventName::Stuck => "Stuck",
            EventName::CrashLoop => "CrashLoop",
            EventName::Saturated => "Saturated",
        }
    }
}

/// One message about an event; OAP merges those of one uuid, the later says what is final.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The same for start and end.
    pub uuid: String,
    /// SkyWalking service name.
    pub service: Arc<str>,
    /// SkyWalking service instance name.
    pub instance: Arc<str>,
    /// What happened.
    pub name: EventName,
    /// Whether it is a trouble (`Error`) or not (`Normal`).
    pub error: bool,
    /// A sentence to read.
    pub message: String,
    /// The same facts for programs; `cause` is always first where there is one.
    pub parameters: Vec<(&'static str, String)>,
    /// Wall time in ms.
    pub start_ms: i64,
    /// Wall time in ms, once it is over.
    pub end_ms: Option<i64>,
}
