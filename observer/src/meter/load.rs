//! What gunicorn's workers serve and what waits for them, as meters of workers and of their masters.
use std::collections::BTreeMap;

use crate::identity::ProcessKey;
use crate::identity::load::Queues;
use crate::identity::load::Turnover;
use crate::meter::Meter;

/// The percentiles of [`Turnover::waits`] as their label says them.
const PERCENTILES: [&str; 3] = ["50", "90", "99"];

/// Meters of a worker for the period that was closed.
pub fn worker(turnover: &Turnover) -> Vec<Meter> {
    let mut meters = vec![
        Meter::new("instance_gunicorn_requests_in_flight", f64::from(turnover.in_flight)),
        Meter::new("instance_gunicorn_requests_in_flight_max", f64::from(turnover.most_in_flight)),
        Meter::new("instance_gunicorn_busy", 100.0 * turnover.busy),
        Meter::new("instance_gunicorn_accepts", turnover.accepts as f64),
        Meter::new("instance_gunicorn_requests", turnover.requests as f64),
        Meter::new("instance_gunicorn_websocket_received", turnover.websocket_received as f64),
        Meter::new("instance_gunicorn_websocket_sent", turnover.websocket_sent as f64),
    ];
    if let Some(waits) = turnover.waits {
        meters.extend(PERCENTILES.iter().zip(waits).map(|(percentile, ns)| {
            Meter::new("instance_gunicorn_queue_wait", ns as f64 / 1e3).label("p", *percentile)
        }));
    }
    meters.extend(turnover.late_ns.map(|ns| Meter::new("instance_gunicorn_loop_lag", ns as f64 / 1e6)));
    meters
}

/// Meters of an arbiter.
pub fn arbiter(respawns: u64) -> Meter {
    Meter::new("instance_gunicorn_respawns", respawns as f64)
}

/// What the kernel says of queues, by whose they are; unread connections only of `workers`, since a master reads none.
pub fn queues(queues: &Queues, is_worker: impl Fn(ProcessKey) -> bool) -> BTreeMap<ProcessKey, Vec<Meter>> {
    let mut all: BTreeMap<ProcessKey, Vec<Meter>> = BTreeMap::new();
    for listener in &queues.listeners {
        let meter =
            |name, value| Meter::new(name, f64::from(value)).label("listener", listener.address.clone());
        all.entry(listener.holder).or_default().extend([
            meter("instance_gunicorn_accept_queue", listener.depth),
            meter("instance_gunicorn_accept_queue_limit", listener.limit),
        ]);
    }
    for overflow in &queues.overflows {
        all.entry(overflow.process).or_default().extend([
            Meter::new("instance_gunicorn_listen_overflows", overflow.overflows as f64),
            Meter::new("instance_gunicorn_listen_drops", overflow.drops as f64),
        ]);
    }
    for unread in queues.unread.iter().filter(|unread| is_worker(unread.process)) {
        let meter = Meter::new("instance_gunicorn_unread_connections", f64::from(unread.connections));
        all.entry(unread.process).or_default().push(meter);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::load::Listener;
    use crate::identity::load::Overflow;
    use crate::identity::load::Unread;
    use crate::meter::definition::DEFINITIONS;

    fn said(meters: &[Meter]) -> Vec<String> {
        for meter in meters {
            assert!(DEFINITIONS.iter().any(|definition| definition.name == meter.name), "{}", meter.name);
        }
        let short = |meter: &Meter| meter.key().replace("instance_gunicorn_", "");
        meters.iter().map(|meter| format!("{}={}", short(meter), meter.value)).collect()
    }

    #[test]
    fn a_workers_numbers_are_in_oaps_units() {
        let turnover = Turnover {
            accepts: 7,
            requests: 6,
            websocket_received: 80,
            websocket_sent: 90,
            in_flight: 1,
            most_in_flight: 2,
            busy: 0.25,
            waits: Some([1_000, 2_000, 3_000]),
            late_ns: Some(4_000_000),
        };
        let expected = "requests_in_flight=1 requests_in_flight_max=2 busy=25 accepts=7 requests=6 \
                        websocket_received=80 websocket_sent=90 queue_wait{p=50}=1 queue_wait{p=90}=2 queue_wait{p=99}=3 loop_lag=4";
        assert_eq!(said(&worker(&turnover)).join(" "), expected);
        let idle = Turnover { waits: None, late_ns: None, ..turnover };
        assert_eq!(said(&worker(&idle)).len(), 7);
        assert_eq!(said(&[arbiter(3)]), ["respawns=3"]);
    }

    #[test]
    fn queues_are_their_holders() {
        let [master, one] = [10, 11].map(|pid| ProcessKey { pid, start: 1 });
        let unread = |process, connections| Unread { process, connections, oldest_ns: 0 };
        let seen = Queues {
            listeners: vec![Listener { holder: master, address: "unix:/s".to_owned(), depth: 9, limit: 8 }],
            unread: vec![unread(master, 0), unread(one, 3)],
            overflows: vec![Overflow { process: master, overflows: 22, drops: 23 }],
        };
        let meters = queues(&seen, |key| key == one);
        let expected = "accept_queue{listener=unix:/s}=9 accept_queue_limit{listener=unix:/s}=8 \
                        listen_overflows=22 listen_drops=23";
        assert_eq!(said(&meters[&master]).join(" "), expected);
        assert_eq!(said(&meters[&one]), ["unread_connections=3"]);
    }
}
