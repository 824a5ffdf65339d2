//! `check`: what this host can do, and what to do about what is missing.
use std::io::Write;

use super::AppError;
use crate::kernel;
use crate::kernel::KernelError;
use crate::kernel::attach::Rehearsal;
use crate::kernel::capability;
use crate::kernel::catalog::Need;

/// Prints findings and, for each probe, the variant that a run would choose and what speaks against the others.
/// Fails when a run would.
pub fn check(mut out: impl Write) -> Result<(), AppError> {
    for finding in capability::findings() {
        writeln!(out, "{:<14} {}", finding.name, finding.found).map_err(AppError::Output)?;
        if let Some(remedy) = finding.remedy {
            writeln!(out, "{:<14} -> {remedy}", "").map_err(AppError::Output)?;
        }
    }
    let rows = kernel::rehearse()?;
    writeln!(out, "\n{:<14} {:<12} what speaks against the others", "probe", "variant")
        .map_err(AppError::Output)?;
    let mut unmet = None;
    for Rehearsal { probe, variants } in rows {
        let chosen =
            variants.iter().find(|(_, refusal)| refusal.is_none()).map(|(variant, _)| variant.name());
        writeln!(out, "{:<14} {}", probe.name, chosen.unwrap_or("none")).map_err(AppError::Output)?;
        for (variant, refusal) in &variants {
            let why = refusal.as_deref().unwrap_or("works too");
            if Some(variant.name()) != chosen {
                writeln!(out, "{:<14} {:<12} {}: {why}", "", "", variant.name()).map_err(AppError::Output)?;
            }
        }
        if chosen.is_none() && probe.need == Need::Required {
            let said = variants
                .iter()
                .filter_map(|(variant, why)| Some(format!("{}: {}", variant.name(), why.as_ref()?)));
            unmet = unmet.or(Some((probe, said.collect::<Vec<_>>().join("; "))));
        }
    }
    match unmet {
        None => writeln!(out, "\nready: run `sw-observe --target gunicorn`").map_err(AppError::Output),
        Some((probe, refusals)) => {
            Err(KernelError::Unattached { probe: probe.name, why_needed: probe.why, refusals }.into())
        }
    }
}
