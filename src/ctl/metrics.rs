//! Parses a member's page `/metrics` as far as `status` needs it. It is in Prometheus' text format.

/// The value of a metric without labels.
pub(super) fn value(page: &str, name: &str) -> Option<f64> {
    let rest = |line: &'_ str| -> Option<f64> {
        let value = line.strip_prefix(name)?.strip_prefix(' ')?;
        value.trim().parse().ok()
    };
    page.lines().find_map(rest)
}

/// The given quantile of a histogram, estimated as Prometheus does: values are evenly distributed within a bucket.
/// None if there are no observations. In the last bucket, the highest bound is used.
pub(super) fn quantile(page: &str, name: &str, share: f64) -> Option<f64> {
    let buckets: Vec<(f64, f64)> = page
        .lines()
        .filter_map(|line| {
            let rest = line.strip_prefix(name)?.strip_prefix("_bucket{le=\"")?;
            let (bound, count) = rest.split_once("\"} ")?;
            let bound = match bound {
                "+Inf" => f64::INFINITY,
                bound => bound.parse().ok()?,
            };
            Some((bound, count.trim().parse().ok()?))
        })
        .collect();
    let (_, all) = *buckets.last()?;
    if all <= 0.0 {
        return None;
    }
    let rank = share * all;
    let at = buckets.iter().position(|(_, count)| *count >= rank)?;
    let (low, below) = at
        .checked_sub(1)
        .map_or((0.0, 0.0), |before| buckets[before]);
    let (high, count) = buckets[at];
    if high.is_infinite() {
        return Some(low);
    }
    Some(low + (high - low) * ((rank - below) / (count - below).max(1.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# HELP sync_seconds x\n\
        sync_seconds_bucket{le=\"0.001\"} 50\n\
        sync_seconds_bucket{le=\"0.002\"} 90\n\
        sync_seconds_bucket{le=\"0.004\"} 98\n\
        sync_seconds_bucket{le=\"+Inf\"} 100\n\
        sync_seconds_count 100\n\
        memory 2.5e+07\n\
        memory_more 1\n";

    #[test]
    fn values_are_found_by_their_whole_name() {
        assert_eq!(value(PAGE, "memory"), Some(2.5e7));
        assert_eq!(value(PAGE, "memor"), None);
        assert_eq!(value("", "memory"), None);
    }

    #[test]
    fn a_quantile_lies_within_its_bucket() {
        let at = |share| quantile(PAGE, "sync_seconds", share);
        assert_eq!(at(0.25), Some(0.0005));
        assert_eq!(at(0.7), Some(0.0015));
        assert_eq!(at(0.99), Some(0.004), "the lower bound of the last bucket");
        assert_eq!(quantile(PAGE, "other", 0.5), None);
        assert_eq!(quantile("a_bucket{le=\"+Inf\"} 0", "a", 0.5), None);
        assert_eq!(quantile("a_bucket{le=\"x\"} 5", "a", 0.5), None);
    }
}
