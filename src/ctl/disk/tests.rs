use super::*;

fn syncs(millis: &[u64]) -> Syncs {
    Syncs::new(millis.iter().copied().map(Duration::from_millis).collect())
}

fn said(millis: &[u64], election: u64) -> (String, bool) {
    let timeouts = Timeouts {
        heartbeat: election / 10,
        election,
    };
    let mut out = String::new();
    let suits = verdict(&mut out, &syncs(millis), timeouts);
    (out, suits)
}

#[test]
fn the_timeout_follows_from_the_slow_syncs() {
    let table: [(&[u64], u64); 6] = [
        (&[1], 1000),
        (&[100; 200], 1000),
        (&[101; 200], 1500),
        (&[160; 200], 2000),
        // One of a thousand is the worst and not the 99th percentile.
        (&[[1; 199].as_slice(), &[700]].concat(), 1500),
        (&[6000], 60_000),
    ];
    for (millis, fits) in table {
        assert_eq!(election_that_fits(&syncs(millis)), fits, "{millis:?}");
    }
}

#[test]
fn a_disk_suits_a_timeout_or_names_the_one_that_fits() {
    let (text, suits) = said(&[20; 100], 1000);
    assert!(suits);
    assert_eq!(
        text,
        "This disk suits a heartbeat interval of 100 ms and an election timeout of 1000 ms: 99 of 100 syncs take at most \
         20.0ms, the worst took 20.0ms.\n\
         The shortest timeouts that fit: --heartbeat-interval=100 --election-timeout=1000\n"
    );
    let (text, suits) = said(&[150; 100], 1000);
    assert!(!suits);
    assert_eq!(
        text,
        "This disk is too slow for an election timeout of 1000 ms: one of 100 syncs takes 150ms or more, the worst took \
         150ms. A leader on it would lose its leadership now and then.\n\
         Start all members with: --heartbeat-interval=150 --election-timeout=1500\n"
    );
    assert!(said(&[150; 100], 1500).1);
    let (text, suits) = said(&[6000], 50_000);
    assert!(!suits && text.contains("use another disk"), "{text}");
}

#[test]
fn a_disk_in_memory_is_recognized() {
    let mut out = String::new();
    let quick = Syncs::new(vec![Duration::from_micros(2); 100]);
    assert!(verdict(&mut out, &quick, DEFAULTS));
    assert!(out.starts_with("These syncs are faster than any disk"));
}

#[test]
fn wear_is_counted_in_days_and_years() {
    let text = wear("http://a", 1000.0, 500.0, Some(8_000_000_000));
    assert_eq!(
        text,
        "\nhttp://a writes 1.00 kB/s now, 0.50 kB/s since its start: 86.4 MB per day.\n\
         That is 1.08% of this disk per day. A flash of this size whose cells endure 1000 writes lasts more than 100 \
         years, if it writes nothing else and distributes its writes evenly.\n"
    );
    let text = wear("http://a", 0.0, 100_000.0, Some(8_000_000_000));
    assert!(
        text.contains("8.64 GB") || text.contains("8640 MB per day"),
        "{text}"
    );
    assert!(text.contains("lasts 2.54 years"), "{text}");
    // A node that writes nothing wears out nothing.
    assert!(!wear("http://a", 0.0, 0.0, Some(1)).contains("flash"));
}
