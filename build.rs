//! Assembles and packs the page that the server has for browsers: `src/page/mod.rs`.

#[path = "src/page/classes.rs"]
mod classes;
#[path = "src/page/pack.rs"]
mod pack;

use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    println!("cargo::rerun-if-changed=src/page");
    println!("cargo::rerun-if-changed=build.rs");
    let document = document(&root.join("src/page"));
    write(
        &out.join("page.deflate"),
        &pack::deflate(document.as_bytes()),
    );
}

/// The document without its head.
fn document(folder: &Path) -> String {
    let text = |name: &str| {
        let path = folder.join(name);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    let script: String = pack::SCRIPTS
        .iter()
        .map(|name| pack::strip(&text(name)))
        .collect();
    format!(
        "<style>{}</style>\n{}<script>\"use strict\";\n{script}</script>\n</html>\n",
        pack::strip(&text("page.css")),
        pack::strip(&text("body.html")),
    )
}

fn write(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}
