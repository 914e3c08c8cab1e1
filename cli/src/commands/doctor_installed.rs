// SPDX-License-Identifier: MIT OR Apache-2.0

//! The checks of `rsshm doctor` that look for the other parts of rsshm: the plugin, the C library, the Python package.

use super::{
    doctor::Finding,
    doctor_program::{Answer, ask},
};

pub(super) fn findings() -> Vec<Finding> {
    vec![plugin(), library(), python()]
}

fn plugin() -> Finding {
    const CHECK: &str = "GStreamer";
    match ask("gst-inspect-1.0", &["rsshmsink"]) {
        Answer::Yes(text) => {
            let field = |name: &str| {
                let line = text.lines().find(|line| line.trim_start().starts_with(name))?;
                line.split_ascii_whitespace().last().map(str::to_owned)
            };
            let version = field("Version ").unwrap_or_default();
            let file = field("Filename ").unwrap_or_default();
            let own = env!("CARGO_PKG_VERSION");
            if version.starts_with(own) {
                Finding::ok(CHECK, format!("plugin {version} in {file}"))
            } else {
                let text = format!("plugin {version} in {file}, but this program is {own}");
                Finding::warn(CHECK, text, "install the same version of both")
            }
        }
        Answer::No => Finding::warn(
            CHECK,
            "GStreamer does not find rsshmsink",
            "make install, or GST_PLUGIN_PATH=DIRECTORY of libgstrsshm.so",
        ),
        Answer::Missing => Finding::ok(CHECK, "gst-inspect-1.0 is not installed; only pipelines need it"),
        Answer::TimedOut => Finding::warn(CHECK, "gst-inspect-1.0 does not answer", "rm -r ~/.cache/gstreamer-1.0"),
    }
}

fn library() -> Finding {
    const CHECK: &str = "C library";
    match ask("pkg-config", &["--modversion", "rsshm"]) {
        Answer::Yes(version) => Finding::ok(CHECK, format!("librsshm {}", version.trim())),
        _ => Finding::ok(
            CHECK,
            "librsshm is not installed; only programs in C and C++ need it (make install-capi)",
        ),
    }
}

fn python() -> Finding {
    const CHECK: &str = "Python";
    const PROGRAM: &str = "import sys, numpy, rsshm\n\
        print(getattr(rsshm, '__version__', ''), 'with NumPy', numpy.__version__, 'in', sys.executable)";
    match ask("python3", &["-c", PROGRAM]) {
        Answer::Yes(text) => Finding::ok(CHECK, format!("package rsshm {}", text.trim())),
        Answer::Missing => Finding::ok(CHECK, "python3 is not installed; only programs in Python need it"),
        Answer::TimedOut => Finding::warn(CHECK, "python3 does not answer", "python3 -c 'import rsshm'"),
        Answer::No => Finding::ok(
            CHECK,
            "python3 has no package rsshm; only programs in Python need it (pip install ./python)",
        ),
    }
}
