//! Process samples to the meters of OAP's Python dashboard (PVM).
use std::sync::Arc;

/// One value of one meter.
#[derive(Clone, Debug, PartialEq)]
pub struct Meter {
    /// Name on the wire, such as `instance_pvm_process_cpu_utilization`.
    pub name: &'static str,
    /// Value in the unit that OAP's rule and widget mean.
    pub value: f64,
}

/// The meters of one instance at one time.
#[derive(Clone, Debug, PartialEq)]
pub struct MeterBatch {
    /// SkyWalking service name.
    pub service: Arc<str>,
    /// SkyWalking service instance name.
    pub instance: Arc<str>,
    /// Wall time in milliseconds since 1970.
    pub at_ms: i64,
    /// The values.
    pub meters: Vec<Meter>,
}
