//! What was printed of an instance's meters.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::observer::Line;
use crate::observer::Observer;

/// How long meters may take to be what they should.
const PATIENCE: Duration = Duration::from_secs(30);

/// The meters of one report, by name and labels.
pub type Meters = BTreeMap<String, f64>;

/// Every batch of an instance, in order.
pub fn batches<'a>(lines: &'a [Line], wanted: &str) -> Vec<&'a Meters> {
    let of = |line: &'a Line| {
        if let Line::Meters { instance, meters, .. } = line
            && instance == wanted
        {
            return Some(meters);
        }
        None
    };
    lines.iter().filter_map(of).collect()
}

/// Waits until an instance's last meters are these.
pub fn expect(observer: &Observer, instance: &str, wanted: &[(String, f64)]) {
    let mut last = Meters::new();
    let found = observer.wait(PATIENCE, |lines| {
        last = batches(lines, instance).last().map(|meters| (*meters).clone()).unwrap_or_default();
        wanted.iter().all(|(meter, value)| last.get(meter) == Some(value))
    });
    assert!(found, "{instance}: not {wanted:?} but {last:#?}\n{}", observer.stderr());
}

/// Waits until a meter of the last batch satisfies a condition, and returns it.
pub fn expect_that(observer: &Observer, instance: &str, meter: &str, is: impl Fn(f64) -> bool) -> f64 {
    let mut last = None;
    let found = observer.wait(PATIENCE, |lines| {
        last = batches(lines, instance).last().and_then(|meters| meters.get(meter)).copied();
        last.is_some_and(&is)
    });
    assert!(found, "{instance}: {meter} is {last:?}\n{}", observer.stderr());
    last.unwrap_or_default()
}

/// The largest value that a meter ever had.
pub fn most(observer: &Observer, instance: &str, meter: &str) -> Option<f64> {
    let mut most = None;
    observer.wait(Duration::ZERO, |lines| {
        let all = batches(lines, instance).into_iter().filter_map(|meters| meters.get(meter).copied());
        most = all.fold(None, |most: Option<f64>, value| Some(most.map_or(value, |most| most.max(value))));
        true
    });
    most
}
