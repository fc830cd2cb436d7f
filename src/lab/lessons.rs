//! Ten lessons: what to do, what to predict, what happens, and where the rule lives.
//!
//! Each lesson contains one or two scripts ([`script`](super::script)). The page performs them line by line, and a test
//! performs them too: their `expect` lines are what the text promises.

/// A lesson.
pub struct Lesson {
    /// The name of its file, without its end.
    pub name: &'static str,
    /// The text in Markdown. It contains the scripts.
    pub text: &'static str,
}

impl Lesson {
    /// The scripts: the blocks of the text that begin with "```lab".
    pub fn scripts(&self) -> impl Iterator<Item = &'static str> {
        let blocks = self.text.split("```lab\n").skip(1);
        blocks.filter_map(|block| block.split_once("```").map(|(script, _)| script))
    }
}

macro_rules! lessons {
    ($($module:ident $name:literal)+) => {
        $(#[doc = include_str!(concat!("lessons/", $name, ".md"))]
        pub mod $module {})+

        /// All lessons, in order.
        pub const ALL: &[Lesson] = &[$(Lesson {
            name: $name,
            text: include_str!(concat!("lessons/", $name, ".md")),
        }),+];
    };
}

lessons! {
    election "01-election"
    majority "02-majority"
    vote "03-vote"
    cut_off "04-cut-off"
    figure_8 "05-figure-8"
    newest_log "06-newest-log"
    read "07-read"
    members "08-members"
    pre_vote "09-pre-vote"
    lost_data "10-lost-data"
}
