//! Each lesson does what its text promises.

use edgetcd::lab::Lab;
use edgetcd::lab::lessons;
use edgetcd::lab::script::Script;

#[test]
fn each_lesson_keeps_its_promise() {
    let mut failed = Vec::new();
    for lesson in lessons::ALL {
        assert!(lesson.scripts().count() > 0, "{} does nothing", lesson.name);
        for (number, script) in (1..).zip(lesson.scripts()) {
            assert!(
                script.contains("expect "),
                "{} promises nothing",
                lesson.name
            );
            if let Err(why) = Script::run(script) {
                failed.push(format!("{}, script {number}: {why}", lesson.name));
            }
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

/// A lesson that switches a rule off has a second script that keeps it, and nothing breaks there.
#[test]
fn a_lesson_without_a_rule_also_keeps_it() {
    for lesson in lessons::ALL {
        let scripts: Vec<&str> = lesson.scripts().collect();
        let is_off = |script: &&str| script.contains("without ");
        assert!(!scripts.iter().all(is_off), "{}", lesson.name);
        let kept = scripts.iter().filter(|script| !is_off(script));
        for script in kept {
            let lab = Script::run(script).unwrap_or_else(|why| panic!("{}: {why}", lesson.name));
            assert_eq!(lab.broken(), None, "{}", lesson.name);
        }
    }
}

/// A lesson's run can be sent as a text: played again, it ends in the same state.
#[test]
fn the_run_of_a_lesson_can_be_played_again() {
    for lesson in lessons::ALL {
        for script in lesson.scripts() {
            let lab = Script::run(script).unwrap_or_else(|why| panic!("{}: {why}", lesson.name));
            let again = Lab::play(lab.run());
            assert_eq!(again.broken(), lab.broken(), "{}", lesson.name);
            assert_eq!(again.state_hash(), lab.state_hash(), "{}", lesson.name);
        }
    }
}

/// The file in the text's last part exists, and the switch that it names is a switch.
#[test]
fn the_places_in_the_texts_exist() {
    for lesson in lessons::ALL {
        let (_, place) = lesson
            .text
            .split_once("## Where the rule lives")
            .expect("each says where");
        let words = place.split('`').skip(1).step_by(2);
        let files: Vec<&str> = words.filter(|word| word.starts_with("src/")).collect();
        assert!(!files.is_empty(), "{} names no file", lesson.name);
        for file in files {
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
            assert!(path.exists(), "{}: {file}", lesson.name);
        }
    }
}
