//! Meters of what an interpreter says of itself.
use super::Meter;
use super::sample::PythonSample;

/// The agent's names where it has one. `instance_pvm_gc_time` is a counter, as OAP's rule takes it: the agent sends how
/// long the last run took.
pub fn meters(python: &PythonSample) -> Vec<Meter> {
    let [young, middle, old] = &python.generations;
    let mut meters = vec![
        Meter::new("instance_pvm_gc_g0", young.collected as f64),
        Meter::new("instance_pvm_gc_g1", middle.collected as f64),
        Meter::new("instance_pvm_gc_g2", old.collected as f64),
        Meter::new("instance_gunicorn_python_threads", python.threads as f64),
        Meter::new("instance_gunicorn_gil_held", if python.gil_locked { 100.0 } else { 0.0 }),
    ];
    meters.extend(python.gc_ns.map(|ns| Meter::new("instance_pvm_gc_time", ns as f64 / 1e6)));
    for (number, generation) in ["0", "1", "2"].into_iter().zip(&python.generations) {
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
        let python = PythonSample { generations, threads: 4, gil_locked: true, gc_ns: None };
        let keys = |python: &PythonSample| {
            let of = |meter: Meter| (meter.key(), meter.value);
            meters(python).into_iter().map(of).collect::<std::collections::BTreeMap<_, _>>()
        };
        let found = keys(&python);
        assert_eq!(found.len(), 11);
        assert_eq!(found.get("instance_pvm_gc_g0"), Some(&30.0));
        assert_eq!(found.get("instance_gunicorn_gc_collections{generation=1}"), Some(&2.0));
        assert_eq!(found.get("instance_gunicorn_gc_uncollectable{generation=2}"), Some(&1.0));
        assert_eq!(found.get("instance_gunicorn_gil_held"), Some(&100.0));
        let found = keys(&PythonSample { gc_ns: Some(1_500_000), ..python });
        assert_eq!(found.get("instance_pvm_gc_time"), Some(&1.5));
    }
}
