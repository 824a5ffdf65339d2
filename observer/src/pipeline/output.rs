//! Everything that the pipeline asks of the rest.
use std::sync::Arc;

use observer_ebpf::record::Conn;

use crate::identity::Casting;
use crate::identity::Instance;
use crate::identity::ProcessKey;
use crate::identity::Role;
use crate::identity::event::Event;
use crate::identity::framework::Application;
use crate::meter::MeterBatch;
use crate::trace::Segment;

/// One step's effect.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// An instance is there.
    Hello(Instance),
    /// An instance is gone.
    Bye(Instance),
    /// What one process did for one request.
    Segment(Segment),
    /// Something happened to an instance.
    Event(Event),
    /// A process is something else from now on.
    Role(Casting),
    /// The numbers of one instance.
    Meters(MeterBatch),
    /// Read the facts of this process; the answer is an input.
    AskFacts(u32),
    /// Look for processes that hold worker slots: one serves whose start went by unseen. The answer is an input.
    AskHolders,
    /// Read what this process has imported, and what its application is; the answer is an input.
    AskImports(ProcessKey, Option<Application>),
    /// Read the numbers of these processes and of the host; the answer is an input.
    AskSamples(Vec<ProcessKey>),
    /// Look at the queues of these processes: they may not keep up. The answer is an input.
    AskQueues(Vec<ProcessKey>),
    /// Watch a process that was there before the probes, as what it is.
    Watch(ProcessKey, Role),
    /// A process is not reported: its traffic is nobody's business. With it comes the sign of the SkyWalking agent
    /// inside, if that is why, and the service.
    Disregard(ProcessKey, Option<(&'static str, Arc<str>)>),
    /// Report nothing of this connection any more.
    Ignore(Conn),
    /// Report of the bytes of this connection only how many they are.
    Count(Conn),
}
