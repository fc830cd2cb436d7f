//! Texts of runs: each run can be written and read, and no text does harm.

use edgetcd::lab::script::Script;
use edgetcd::lab::{Lab, Run, acts};
use edgetcd::random::Random;

const RUN: &str = "lab 1
seed 7
members 5
without COMMIT_OWN_TERM_ONLY
without ChangesOneByOne
10 crash 1
10 cut 1 2
12 delay 2 3 250
12 disk 3 hung
20 write 4 k0
30 end
";

#[test]
fn a_run_is_read_as_it_was_written() {
    let run = Run::parse(RUN).expect("a good run");
    assert_eq!(run.to_string(), RUN);
    let fragment = run.fragment();
    assert!(!fragment.contains([' ', '\n', '#']), "{fragment}");
    assert_eq!(Run::parse(&fragment), Ok(run));
}

#[test]
fn each_act_is_read_as_it_is_written() {
    for (words, _) in acts::WORDS {
        for state in ["good", "slow", "hung", "full"] {
            let words = words.replace("good|slow|hung|full", state);
            let words = words
                .replace("half|true|double", "half")
                .replace("BYTES", "5000")
                .replace("COUNT", "7")
                .replace("kK", "k3")
                .replace("MS", "40")
                .replace('N', "1")
                .replace('M', "2");
            let words: Vec<&str> = words.split(' ').collect();
            let number = |word: &str| word.parse().map_err(|_| format!("{word}?"));
            let act = acts::parse(&words, &number).unwrap_or_else(|why| panic!("{words:?}: {why}"));
            assert_eq!(acts::text(act), words.join(" "));
        }
    }
}

#[test]
fn a_wrong_line_is_named() {
    let wrong = [
        ("", "lab 1"),
        ("seed 7", "lab 1"),
        ("lab 2", "lab 1"),
        ("lab 1\nmembers 9", "3 to 7"),
        ("lab 1\nseed -1", "not a number"),
        ("lab 1\nseed +5", "5"),
        ("lab 1\nwithout SENSE", "SENSE"),
        (
            "lab 1\nwithout PRE_VOTE\nwithout CHECK_QUORUM",
            "at most one",
        ),
        ("lab 1\n10 explode 1", "explode"),
        ("lab 1\n10 crash", "crash"),
        ("lab 1\n10 crash 1\n9 crash 2", "after step 10"),
        ("lab 1\n99999999999 end", "at most"),
        ("lab 1\n1 write 1 color", "k0"),
        ("lab 1\n1 disk 1 wet", "wet"),
    ];
    for (text, part) in wrong {
        match Run::parse(text) {
            Err(why) => assert!(why.contains(part), "{text:?}: {why}"),
            // In a fragment, + separates words.
            Ok(run) => assert!(text.contains('+') && run.seed == 5, "{text:?} was read"),
        }
    }
    assert!(Run::parse(&"lab 1\n".repeat(100_000)).is_err());
}

/// Texts that are almost runs. Every text that can be read can be played.
#[test]
fn no_text_stops_the_lab() {
    let mut random = Random::new(5);
    let mut played = 0;
    for _ in 0..600 {
        let mut text = RUN.replace("30 end", "60 read 2 k1\n300 end").into_bytes();
        for _ in 0..=random.below(2) {
            // After the line with the format.
            let at = 6 + random.below(text.len() as u64 - 6) as usize;
            match random.below(3) {
                0 => text[at] = b"0123456789 \n;+klabcrash"[random.below(23) as usize],
                1 => drop(text.remove(at)),
                _ => text.insert(at, b'0' + random.below(10) as u8),
            }
        }
        let text = String::from_utf8_lossy(&text);
        let Ok(run) = Run::parse(&text) else { continue };
        let lab = Lab::at(run.clone(), run.end.min(400));
        let text = lab.json() + &lab.trace_json(0, 0);
        assert!(text.starts_with('{'), "{text}");
        let stops = lab.broken().filter(|_| run.without.is_empty());
        assert_eq!(stops, None, "{run}");
        played += 1;
    }
    assert!(played > 20, "{played} texts could be read");
}

#[test]
fn a_script_says_which_line_fails() {
    let fails = |text| match Script::run(text) {
        Err(why) => why,
        Ok(_) => panic!("{text:?} can be done"),
    };
    assert!(fails("until leader\nexpect leads 9").contains("expect leads 9"));
    assert!(fails("until nonsense").contains("nonsense"));
    assert!(fails("until leader\nmembers 5").contains("before the first act"));
    assert!(fails("until leader\ncrash 1\ncrash 1").contains("does not run"));
    assert!(
        fails("until leader\ncrash 1\ncrash 2\ncrash 3\nrun 3000\nuntil leader")
            .contains("nothing more")
    );
}

/// A condition that cannot be checked is no violation: `expect broken` must not hold because of it.
#[test]
fn a_wrong_condition_breaks_nothing() {
    for (condition, why) in [
        ("leads 9", "there is no member 9"),
        ("leads bold", "bold"),
        ("not leads bold", "bold"),
        ("term 1 new", "new"),
        ("key 1 color 3", "color"),
        ("reply 7 done", "there is no request #7"),
        ("reply 7 well", "well"),
    ] {
        let mut script = Script::default();
        script.line("until steady").expect("they elect a leader");
        let said = script.line(&format!("require {condition}"));
        let said = said.expect_err(condition);
        assert!(said.contains(why), "{condition}: {said}");
        assert_eq!(script.lab().broken(), None, "{condition}");
        assert_eq!(script.lab().run().requires, [], "{condition}");
    }
    for words in [
        "leads bold",
        "not term 1 new",
        "key 1 color 3",
        "reply 1 well",
    ] {
        let read = Run::parse(&format!("lab 1\n10 require {words}"));
        assert!(read.is_err(), "{words}");
    }
}

#[test]
fn a_required_condition_has_numbers_for_names() {
    let mut script = Script::default();
    for line in [
        "until steady",
        "name old leader",
        "index spot last old",
        "require leads leader",
        "require not leads other",
        "require up third",
        "require up n1",
        "require last old spot",
        "require not sent append old other 60000",
    ] {
        script.line(line).expect("it can be done");
    }
    let run = script.into_lab().run();
    let words = run.requires.iter().map(|(_, words)| words.as_str());
    let named: Vec<&str> = words
        .filter(|words| words.contains(char::is_numeric))
        .collect();
    assert_eq!(named.len(), 6, "{named:?}");
    assert!(named.contains(&"up 1"), "{named:?}");
    let text = run.to_string();
    assert!(!text.contains("other") && !text.contains("spot"), "{text}");
    assert_eq!(Run::parse(&text).as_ref(), Ok(&run));
    assert_eq!(Lab::play(run).broken(), None);
}

/// A script that goes on after its run has broken ends, too.
#[test]
fn a_broken_run_goes_nowhere() {
    let script = "
        without StrangersAreIgnored
        until steady
        intrude leader
        run 50
        step 5
        expect broken";
    let lab = Script::run(script).expect("each line ends");
    assert!(lab.broken().is_some());
}
