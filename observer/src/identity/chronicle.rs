//! Words for what happened: builds the events of masters and workers.
use super::Instance;
use super::ProcessKey;
use super::Role;
use super::cause::Verdict;
use super::event::Event;
use super::event::EventName;
use crate::clock::KernelTime;
use crate::clock::WallOffset;

/// An event whose end is still to come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    uuid: String,
    /// When it began.
    pub start: KernelTime,
}

/// What an event says beside its name, its times and whose it is.
#[derive(Clone, Debug, Default)]
pub struct Story {
    /// Whether it is a trouble.
    pub error: bool,
    /// A sentence.
    pub message: String,
    /// The same for programs.
    pub parameters: Vec<(&'static str, String)>,
}

/// Makes events. The same seed gives the same uuids in the same order.
#[derive(Debug)]
pub struct Chronicle {
    ids: fastrand::Rng,
    /// What to add to kernel time.
    pub wall: WallOffset,
}

impl Chronicle {
    /// With uuids from `seed`.
    pub fn new(seed: u64, wall: WallOffset) -> Chronicle {
        Chronicle { ids: fastrand::Rng::with_seed(seed), wall }
    }

    /// Something begins.
    pub fn begin(&mut self, start: KernelTime) -> Open {
        let hex = format!("{:032x}", self.ids.u128(..));
        let parts = [hex.get(..8), hex.get(8..12), hex.get(12..16), hex.get(16..20), hex.get(20..)];
        Open { uuid: parts.map(Option::unwrap_or_default).join("-"), start }
    }

    /// The message about something that began and, with `end`, is over.
    pub fn tell(
        &self,
        open: &Open,
        instance: &Instance,
        name: EventName,
        end: Option<KernelTime>,
        story: Story,
    ) -> Event {
        Event {
            uuid: open.uuid.clone(),
            service: instance.service.clone(),
            instance: instance.name.clone(),
            name,
            error: story.error,
            message: story.message,
            parameters: story.parameters,
            start_ms: self.wall.wall_ms(open.start),
            end_ms: end.map(|end| self.wall.wall_ms(end)),
        }
    }
}

/// Who did what, for `Exit`: a sentence and its parts.
pub fn exit(
    process: ProcessKey,
    role: Role,
    state: &'static str,
    status: &str,
    lived: Option<u64>,
    verdict: &Verdict<'_>,
) -> Story {
    let mut message =
        format!("{} {} ended ({status}): {}", role.name(), process.pid, verdict.cause.meaning());
    let mut parameters = vec![
        ("cause", verdict.cause.name().to_owned()),
        ("pid", process.pid.to_string()),
        ("role", role.name().to_owned()),
        ("status", status.to_owned()),
        ("state", state.to_owned()),
    ];
    if let Some(signal) = verdict.signal {
        message.push_str(&format!(", signal {} from {} (pid {})", signal.number, signal.comm, signal.sender));
        parameters.push(("signal", signal.number.to_string()));
        parameters.push(("sender_pid", signal.sender.to_string()));
        parameters.push(("sender", signal.comm.clone()));
    }
    if let Some(reason) = verdict.reason {
        message.push_str(&format!(": {reason}"));
        parameters.push(("reason", reason.to_owned()));
    }
    if let Some(lived) = lived {
        message.push_str(&format!("; lived {} s", seconds(lived)));
        parameters.push(("lived_s", seconds(lived)));
    }
    Story { error: verdict.cause.is_trouble(), message, parameters }
}

/// Nanoseconds as seconds with three decimals.
pub fn seconds(ns: u64) -> String {
    format!("{}.{:03}", ns / 1_000_000_000, ns / 1_000_000 % 1000)
}
