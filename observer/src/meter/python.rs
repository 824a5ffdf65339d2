//! Meters of what an interpreter says of itself.
use super::Meter;
use super::sample::PythonSample;

/// Youngest first.
const GENERATIONS: [&str; 3] = ["0", "1", "2"];

/// The agent's names where it has one. `instance_pvm_gc_time` is a counter, as OAP's rule takes it: the agent sends how
/// long the last run took.
pub fn meters(python: &PythonSample) -> Vec<Meter> {
    let percent = |is: bool| if is { 100.0 } else { 0.0 };
    let [young, middle, old] = &python.generations;
    let mut meters = vec![
        Meter::new("instance_pvm_gc_g0", young.collected as f64),
        Meter::new("instance_pvm_gc_g1", middle.collected as f64),
        Meter::new("instance_pvm_gc_g2", old.collected as f64),
        Meter::new("instance_gunicorn_python_threads", python.threads as f64),
        Meter::new("instance_gunicorn_gil_held", percent(python.gil_locked)),
        Meter::new("instance_gunicorn_gil_held_by_main", percent(python.gil_main)),
    ];
    let milliseconds = |ns: u64| ns as f64 / 1e6;
    let paused = python.gc_paused_ns.map(|ns| ns.iter().sum());
    meters.extend(paused.map(|ns| Meter::new("instance_pvm_gc_time", milliseconds(ns))));
    let waited = python.gil_waited_ns;
    meters.extend(waited.map(|ns| Meter::new("instance_gunicorn_gil_wait", milliseconds(ns))));
    let pauses = [
        ("instance_gunicorn_gc_pause", python.gc_paused_ns),
        ("instance_gunicorn_gc_pause_max", python.gc_longest_ns),
    ];
    for (name, times) in pauses {
        let each = GENERATIONS.into_iter().zip(times.into_iter().flatten());
        meters
            .extend(each.map(|(number, ns)| Meter::new(name, milliseconds(ns)).label("generation", number)));
    }
    for (number, generation) in GENERATIONS.into_iter().zip(&python.generations) {
        let runs = Meter::new("instance_gunicorn_gc_collections", generation.collections as f64);
        let left = Meter::new("instance_gunicorn_gc_uncollectable", generation.uncollectable as f64);
        meters.extend([runs.label("generation", number), left.label("generation", number)]);
    }
    meters
}

#[cfg(test)]
mod tests {
    use super::super::sample::Generation;
    use super::*;

    #[test]
    fn each_generation_has_its_meters_and_time_only_where_it_is_kept() {
        let generation = |n| Generation { collections: n, collected: 10 * n, uncollectable: n % 2 };
        let generations = [generation(3), generation(2), generation(1)];
        let python = PythonSample { generations, threads: 4, gil_locked: true, ..PythonSample::default() };
        let keys = |python: &PythonSample| {
            let of = |meter: Meter| (meter.key(), meter.value);
            meters(python).into_iter().map(of).collect::<std::collections::BTreeMap<_, _>>()
        };
        let found = keys(&python);
        assert_eq!(found.len(), 12);
        assert_eq!(found.get("instance_pvm_gc_g0"), Some(&30.0));
        assert_eq!(found.get("instance_gunicorn_gc_collections{generation=1}"), Some(&2.0));
        assert_eq!(found.get("instance_gunicorn_gc_uncollectable{generation=2}"), Some(&1.0));
        assert_eq!(found.get("instance_gunicorn_gil_held"), Some(&100.0));
        let timed = PythonSample {
            gc_paused_ns: Some([500_000, 0, 1_000_000]),
            gc_longest_ns: Some([250_000, 0, 1_000_000]),
            gil_waited_ns: Some(2_000_000),
            ..python
        };
        let found = keys(&timed);
        assert_eq!(found.len(), 12 + 8);
        assert_eq!(found.get("instance_pvm_gc_time"), Some(&1.5));
        assert_eq!(found.get("instance_gunicorn_gc_pause{generation=2}"), Some(&1.0));
        assert_eq!(found.get("instance_gunicorn_gc_pause_max{generation=0}"), Some(&0.25));
        assert_eq!(found.get("instance_gunicorn_gil_wait"), Some(&2.0));
    }
}
