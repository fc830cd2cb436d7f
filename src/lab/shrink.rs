//! Shorter runs that break in the same way.

use super::{Lab, Run};

/// The kind of a violation: the words before its first colon. A shorter run must break with the same kind.
pub fn kind(text: &str) -> &str {
    text.split(':').next().unwrap_or(text)
}

/// The violation of a run, if it breaks before its end.
pub fn broken(run: &Run) -> Option<(u64, String)> {
    let lab = Lab::play(run.clone());
    let broken = lab.broken()?;
    Some((broken.step, broken.text.clone()))
}

/// Whether the same acts break nothing with all rules, in twice as many steps.
pub fn holds_with_all_rules(run: &Run) -> bool {
    broken(&Run {
        without: Vec::new(),
        end: run.end * 2,
        ..run.clone()
    })
    .is_none()
}

/// Removes acts, first many and then one at a time, as long as the run still breaks with the same kind of violation. Then
/// it ends the run at the violation. None if the run does not break.
///
/// A required condition may also fail because an act is missing. So a run that requires one must hold with all rules.
pub fn shrink(run: &Run) -> Option<Run> {
    let (_, text) = broken(run)?;
    let breaks = |run: &Run| {
        let found = broken(run).filter(|(_, found)| kind(found) == kind(&text));
        found.filter(|_| run.requires.is_empty() || holds_with_all_rules(run))
    };
    let mut best = run.clone();
    let mut chunk = (best.acts.len() / 2).max(1);
    loop {
        let before = best.acts.len();
        let mut at = 0;
        while at < best.acts.len() {
            let mut shorter = best.clone();
            let to = (at + chunk).min(shorter.acts.len());
            shorter.acts.drain(at..to);
            match breaks(&shorter) {
                Some((step, _)) => {
                    shorter.end = step;
                    shorter.acts.retain(|(act, _)| *act <= step);
                    best = shorter;
                }
                None => at += chunk,
            }
        }
        if chunk > 1 {
            chunk /= 2;
        } else if best.acts.len() == before {
            break;
        }
    }
    while let Some(earlier) = earlier(&best).filter(|run| breaks(run).is_some()) {
        best = earlier;
    }
    let (step, _) = breaks(&best)?;
    best.end = step;
    best.acts.retain(|(act, _)| *act <= step);
    Some(best)
}

/// The run with its last condition required earlier: a quarter of the time since the last act.
fn earlier(run: &Run) -> Option<Run> {
    let last = run.acts.last().map_or(0, |(step, _)| *step);
    let mut run = run.clone();
    let (step, _) = run.requires.last_mut()?;
    let before = *step;
    *step = last + (before - last) * 3 / 4;
    run.end = *step;
    (run.end < before).then_some(run)
}
