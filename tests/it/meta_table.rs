// SPDX-License-Identifier: MIT OR Apache-2.0

//! The table of docs/METAS.md has every meta of the GStreamer that runs the tests.

use std::{
    collections::BTreeSet,
    ffi::{CString, c_char, c_void},
    fs,
    path::{Path, PathBuf},
};

use gst::{glib, prelude::*};
use rsshm_testkit::{
    Process,
    gst::role_command,
    role::{Role, say},
};

const LISTER: &str = "meta_table/lister";

/// The role of the process that this test starts.
pub const ROLES: &[(&str, Role)] = &[(LISTER, list_metas)];

const TABLE: &str = include_str!("../../docs/METAS.md");

/// What a line of the lister begins with before the name of a meta.
const MARK: &str = "meta: ";

#[test]
fn table_has_every_registered_meta() {
    // The libraries and plugins are loaded in a process of their own, because some of them disturb others.
    let mut command = role_command(LISTER, &[]);
    command.env_remove("G_DEBUG");
    let output = Process::start(command).wait_ok();
    let registered: BTreeSet<&str> = output.lines().filter_map(|line| line.strip_prefix(MARK)).collect();
    assert!(registered.len() > 20, "{registered:?}");
    assert!(registered.contains("GstVideoMeta") && registered.contains("GstRTPSourceMeta"));
    let missing: Vec<_> = registered
        .iter()
        .filter(|name| !TABLE.contains(&format!("| `{name}` |")))
        .collect();
    assert!(missing.is_empty(), "docs/METAS.md has no row for {missing:?}");
}

/// Prints the names of all metas of GStreamer's libraries and plugins.
fn list_metas(_: &[&str]) {
    for name in all_metas() {
        say(format!("{MARK}{name}"));
    }
}

/// The names of all metas of GStreamer's libraries and plugins, which this function loads.
pub fn all_metas() -> Vec<&'static str> {
    gst::init().unwrap();
    for library in libraries() {
        register_metas_of(&library);
    }
    register_metas_of_plugins();
    registered_metas()
}

/// GStreamer's libraries, which are in the directory of its core library.
fn libraries() -> Vec<PathBuf> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let core = maps
        .lines()
        .find_map(|line| {
            line.split_whitespace()
                .last()
                .filter(|path| path.contains("/libgstreamer-1.0.so"))
        })
        .unwrap();
    let is_library = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("libgst") && name.ends_with("-1.0.so.0")
    };
    let files = fs::read_dir(Path::new(core).parent().unwrap()).unwrap();
    files.map(|file| file.unwrap().path()).filter(is_library).collect()
}

/// Calls every function of a library that registers a meta.
fn register_metas_of(library: &Path) {
    let path = CString::new(library.to_str().unwrap()).unwrap();
    // SAFETY: the path is valid, and GStreamer's libraries run no harmful code when they are loaded.
    let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_LAZY | libc::RTLD_LOCAL) };
    if handle.is_null() {
        // Some libraries need drivers that this machine may not have.
        return;
    }
    let content = fs::read(library).unwrap();
    for text in content.split(|byte| *byte == 0) {
        let is_name = text.starts_with(b"gst_") && text.ends_with(b"_meta_get_info") && text != b"gst_meta_get_info";
        let Some(name) = CString::new(text).ok().filter(|_| is_name) else {
            continue;
        };
        // SAFETY: the library is open, and the name is valid.
        let function = unsafe { libc::dlsym(handle, name.as_ptr()) };
        if !function.is_null() {
            // SAFETY: all functions with such names have this type.
            let get_info: extern "C" fn() -> *const c_void = unsafe { std::mem::transmute(function) };
            get_info();
        }
    }
}

/// Loads GStreamer's plugins and the classes of their elements, because plugins register metas in both.
fn register_metas_of_plugins() {
    let registry = gst::Registry::get();
    for plugin in registry.plugins() {
        let source = plugin.source();
        let is_own = ["gstreamer", "gst-libav"].contains(&source.as_str()) || source.starts_with("gst-plugins-");
        if !is_own || plugin.load().is_err() {
            continue;
        }
        for feature in registry.features_by_plugin(&plugin.plugin_name()) {
            let factory = feature.downcast::<gst::ElementFactory>();
            if let Some(element) = factory.ok().and_then(|factory| factory.load().ok()) {
                let element = element.downcast::<gst::ElementFactory>().unwrap();
                let _ = glib::Class::<gst::Element>::from_type(element.element_type());
            }
        }
    }
}

/// The names of the metas that are registered now. Their types are pointers.
fn registered_metas() -> Vec<&'static str> {
    let is_meta = |name: &&str| {
        let name = CString::new(*name).unwrap();
        let name: *const c_char = name.as_ptr();
        // SAFETY: the name is valid.
        !unsafe { gst::ffi::gst_meta_get_info(name) }.is_null()
    };
    let types = glib::Type::POINTER.children();
    let names = types.iter().map(|meta| meta.name());
    names
        .filter(is_meta)
        .filter(|name| !name.starts_with("RsShm"))
        .collect()
}
