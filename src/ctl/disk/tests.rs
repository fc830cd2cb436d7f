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
    let table: [(&[u64], u64, u64); 6] = [
        (&[1], 10, 1000),
        (&[100; 200], 1000, 1000),
        (&[101; 200], 1010, 1500),
        (&[160; 200], 1600, 2000),
        // One of two hundred is the worst and not the 99th percentile.
        (&[[1; 199].as_slice(), &[700]].concat(), 1400, 1500),
        (&[6000], 60_000, 60_000),
    ];
    for (millis, needed, rounded) in table {
        let found = needed_election(&syncs(millis));
        assert_eq!(found, Duration::from_millis(needed), "{millis:?}");
        assert_eq!(round_election(found), rounded, "{millis:?}");
    }
    assert_eq!(round_election(Duration::from_micros(1_500_001)), 2000);
}

#[test]
fn the_measured_value_decides_and_not_the_rounded_one() {
    for (millis, election, suits) in [
        (101, 1009, false),
        (101, 1010, true),
        (101, 1499, true),
        // A node on a quick disk may have shorter timeouts than the default.
        (1, 500, true),
        (1, 10, true),
        (1, 9, false),
    ] {
        assert_eq!(
            said(&[millis; 200], election).1,
            suits,
            "{millis}, {election}"
        );
    }
    let syncs = Syncs::new(vec![Duration::from_micros(100_001); 200]);
    assert!(!verdict(&mut String::new(), &syncs, DEFAULTS));
}

#[test]
fn timeouts_that_a_node_refuses_are_refused() {
    let given = |heartbeat, election| Given {
        heartbeat,
        election,
    };
    assert_eq!(given(None, None).of_a_new_node().expect("good"), DEFAULTS);
    let good = given(Some(200), None).of_a_new_node().expect("good");
    assert_eq!((good.heartbeat, good.election), (200, 1000));
    for (heartbeat, election, hint) in [
        (None, Some(300), "type --election-timeout=500"),
        (Some(201), None, "type --election-timeout=1005"),
        (None, Some(50_001), "type --election-timeout=50000"),
        (
            Some(20_000),
            Some(50_000),
            "type a smaller --heartbeat-interval",
        ),
    ] {
        match given(heartbeat, election).of_a_new_node() {
            Err(Stop::Usage(text)) => assert!(text.contains(hint), "{text}"),
            other => panic!("{heartbeat:?} {election:?}: {other:?}"),
        }
    }
}

#[test]
fn flags_that_are_given_must_be_those_of_the_node() {
    let own = Timeouts {
        heartbeat: 200,
        election: 3000,
    };
    for (heartbeat, election, fits) in [
        (None, None, true),
        (Some(200), None, true),
        (None, Some(3000), true),
        (Some(200), Some(3000), true),
        (None, Some(1000), false),
        (Some(DEFAULTS.heartbeat), Some(DEFAULTS.election), false),
    ] {
        let given = Given {
            heartbeat,
            election,
        };
        assert_eq!(given.fits(own), fits, "{given:?}");
    }
}

#[test]
fn a_file_system_without_mappings_is_named() {
    let mut measured = Measured {
        mapped: None,
        written: syncs(&[20; 100]),
        dsync: syncs(&[30; 100]),
        sustained: 2e7,
        segment: Duration::from_millis(40),
        large_segment: Duration::from_millis(50),
    };
    assert_eq!(measured.log(), &measured.written);
    assert_eq!(
        text(&measured),
        "SYNC OF 4 KIB           P50     P99   WORST  COUNT\n\
         mmap + msync              -       -       -      -\n\
         pwrite + fdatasync   20.0ms  20.0ms  20.0ms    100\n\
         pwrite with O_DSYNC  30.0ms  30.0ms  30.0ms    100\n\
         mmap is not used on this file system, because it moves its blocks (btrfs, zfs, f2fs) or is elsewhere (network). \
         Where blocks move, a sync costs more: it also writes the blocks that point to them.\n\
         \n\
         sustained writes: 20.0 MB/s, with a sync after every 4 MiB\n\
         new log segment: 40.0ms for 1 MiB, 50.0ms for 16 MiB\n\n"
    );
    measured.mapped = Some(syncs(&[10; 100]));
    assert_eq!(measured.log(), &syncs(&[10; 100]));
    let lines: Vec<String> = text(&measured).lines().map(str::to_owned).collect();
    assert_eq!(
        lines[1],
        "mmap + msync         10.0ms  10.0ms  10.0ms    100"
    );
    assert_eq!(lines[4], "");
}

#[test]
fn a_disk_suits_a_timeout_or_names_the_one_that_fits() {
    let (text, suits) = said(&[20; 100], 1000);
    assert!(suits);
    assert_eq!(
        text,
        "This disk suits a heartbeat interval of 100 ms and an election timeout of 1000 ms: 99 of 100 syncs take at most \
         20.0ms, the worst took 20.0ms.\n\
         An election timeout that is shorter than 200ms would not suit it.\n"
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
    assert_eq!(
        text,
        "\nhttp://a writes 0.00 kB/s now, 100 kB/s since its start: 8640 MB per day.\n\
         That is 108% of this disk per day. A flash of this size whose cells endure 1000 writes lasts 2.54 years, if it \
         writes nothing else and distributes its writes evenly.\n"
    );
    // A node that writes nothing wears out nothing.
    assert!(!wear("http://a", 0.0, 0.0, Some(1)).contains("flash"));
}
