// SPDX-License-Identifier: MIT OR Apache-2.0

//! The symbols of the shared library, the header, and `rsshm.map` agree.

use std::{collections::BTreeSet, fs, process::Command};

use crate::support::{crate_directory, library, run};

/// The functions that the header declares.
fn declared() -> BTreeSet<String> {
    let header = fs::read_to_string(crate_directory().join("include/rsshm.h")).unwrap();
    let is_declaration = |line: &&str| !line.starts_with([' ', '/', '*', '#']) && line.contains('(');
    let name = |line: &str| {
        let before = line.split('(').next()?;
        Some(before.rsplit([' ', '*']).next()?.to_owned())
    };
    header.lines().filter(is_declaration).filter_map(name).collect()
}

#[test]
fn library_exports_the_declared_functions_and_nothing_else() {
    let symbols = run(Command::new("nm")
        .args(["-D", "--defined-only"])
        .arg(library().join("librsshm.so.0")));
    let mut exported = BTreeSet::new();
    for line in symbols.lines() {
        let symbol = line.rsplit(' ').next().unwrap();
        if symbol == "RSSHM_0" {
            continue;
        }
        let name = symbol.strip_suffix("@@RSSHM_0");
        exported.insert(name.unwrap_or_else(|| panic!("{symbol} has no version")).to_owned());
    }
    assert_eq!(exported, declared());
    assert!(exported.len() > 30);
}

#[test]
fn library_has_a_soname_and_few_dependencies() {
    let dynamic = run(Command::new("readelf").arg("-d").arg(library().join("librsshm.so.0")));
    assert!(dynamic.contains("Library soname: [librsshm.so.0]"), "{dynamic}");
    assert!(dynamic.contains("NODELETE"), "{dynamic}");
    for line in dynamic.lines().filter(|line| line.contains("NEEDED")) {
        let is_system = [
            "libc.so",
            "libm.so",
            "libgcc_s.so",
            "libdl.so",
            "libpthread.so",
            "ld-linux",
        ];
        assert!(is_system.iter().any(|name| line.contains(name)), "{line}");
    }
}

#[test]
fn headers_compile_alone_in_each_language_version() {
    for (compiler, header, standards) in [
        ("cc", "rsshm.h", &["c99", "c11", "c17"][..]),
        ("c++", "rsshm.h", &["c++11", "c++17", "c++20"][..]),
        ("c++", "rsshm.hpp", &["c++17", "c++20"][..]),
    ] {
        for standard in standards {
            let language = if compiler == "cc" { "c" } else { "c++" };
            run(Command::new(compiler)
                .args([
                    "-pedantic",
                    "-Wall",
                    "-Wextra",
                    "-Werror",
                    "-fsyntax-only",
                    "-x",
                    language,
                ])
                .arg(format!("-std={standard}"))
                .args(["-include", header, "-I"])
                .arg(crate_directory().join("include"))
                .arg("/dev/null"));
        }
    }
}
