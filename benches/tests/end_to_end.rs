// SPDX-License-Identifier: MIT OR Apache-2.0

//! Tests that run small benchmarks from the start to the report.

use std::{
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use rsshm_testkit::{Process, eventually, gst};
use serde_json::Value;

struct Bench {
    process: Process,
    out: PathBuf,
}

impl Bench {
    /// Starts a benchmark of frames of raw video.
    fn frames(name: &str, arguments: &str) -> Self {
        Self::start(name, &format!("--sizes 720p --warm 5 {arguments}"))
    }

    /// Starts a benchmark of bursts of small buffers.
    fn bursts(name: &str, arguments: &str) -> Self {
        Self::start(
            name,
            &format!("--only bursts --bursts 2 --burst-buffers 400 {arguments}"),
        )
    }

    fn start(name: &str, arguments: &str) -> Self {
        let out = std::env::temp_dir().join(format!("rsshm-bench-test-{}-{name}", std::process::id()));
        let mut command = gst::command(env!("CARGO_BIN_EXE_rsshm-bench"));
        // Without G_DEBUG, warnings of other projects' elements are not fatal.
        command.env_remove("G_DEBUG");
        command
            .args(["--rounds", "1"])
            .args(arguments.split(' '))
            .arg("--out")
            .arg(&out);
        let process = Process::start(command);
        Self { process, out }
    }

    /// The contents of report.json, which the benchmark has written.
    fn report(&self) -> Value {
        serde_json::from_str(&std::fs::read_to_string(self.out.join("report.json")).unwrap()).unwrap()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.out);
    }
}

/// Checks that the benchmark has left no files in /dev/shm or in the directory for temporary files.
#[track_caller]
fn assert_nothing_left(pid: i32) {
    for directory in ["/dev/shm".into(), std::env::temp_dir()] {
        for entry in std::fs::read_dir(directory).unwrap().flatten() {
            let name = entry.file_name().into_string().unwrap();
            assert!(!name.contains(&format!("rsshm-bench-{pid}")), "{name} is left");
        }
    }
}

#[test]
fn small_benchmark_writes_report_and_pictures() {
    let mut bench = Bench::frames("small", "--frames 50 --rates 60 --transports rsshm,fakesink,futex,shm");
    let text = bench.process.wait_ok();
    assert!(text.contains("NV12 1280x720, in place, 60 fps, 1 reader"), "{text}");
    assert_nothing_left(bench.process.pid().as_raw());

    let report = bench.report();
    assert_eq!(report["failures"], serde_json::json!([]));
    assert!(report["machine"]["rsshm"].as_str().unwrap().contains("libgstrsshm.so"));
    let results = report["results"].as_array().unwrap();
    let result_of = |transport| results.iter().find(|result| result["transport"] == transport).unwrap();
    assert_eq!(results.len(), 4);
    for transport in ["rsshm", "futex", "shm"] {
        let result = result_of(transport);
        let run = &result["runs"][0];
        assert_eq!(run["frames"], 50);
        let quantiles = run["latency"]["quantiles_us"].as_array().unwrap();
        assert!(
            quantiles.iter().map(|us| us.as_f64().unwrap()).is_sorted(),
            "{quantiles:?}"
        );
        let rate = result["figures"]["frames_per_second"]["median"].as_f64().unwrap();
        assert!((50.0..70.0).contains(&rate), "{transport}: {rate}");
        assert!(result["figures"]["reader_cpu_us"]["median"].as_f64().unwrap() > 0.0);
    }
    let counts = &result_of("rsshm")["runs"][0]["writer_counts"];
    assert!(counts["frames-in-place"].as_u64().unwrap() >= 50, "{counts}");
    assert_eq!(counts["frames-copied"], 0);
    assert!(
        result_of("rsshm")["figures"]["latency_to_futex"]["median"]
            .as_f64()
            .unwrap()
            > 0.0
    );
    assert!(result_of("fakesink")["runs"][0]["latency"].is_null());
    for transport in ["rsshm", "shm"] {
        let run = &result_of(transport)["runs"][0];
        let memory = |what: &str| run["memory"][what].as_u64().unwrap();
        // Both transports have at least one frame in shared memory, and both processes map it.
        assert!(memory("shared_bytes") >= 1280 * 720 * 3 / 2, "{transport}: {run}");
        assert!(memory("pss_bytes") > memory("shared_bytes"), "{transport}: {run}");
        let starts = run["starts"].as_array().unwrap();
        let time = |what: &str| starts[0][what].as_f64().unwrap();
        assert_eq!(starts.len(), 1);
        // The first frame may come while the reader's pipeline still starts, and then has no time of its own.
        assert!(time("frame_ms") < time("process_ms"), "{transport}: {run}");
    }
    let picture = std::fs::read_to_string(bench.out.join("latency-720p-in-place-60fps-1.svg")).unwrap();
    assert!(picture.starts_with("<svg") && picture.contains("rsshm"));
}

#[test]
fn tables_are_written_into_a_document() {
    let mut bench = Bench::frames(
        "document",
        "--frames 30 --rates 0 --modes foreign --reading few,all --transports rsshm-lossless,fakesink",
    );
    bench.process.wait_ok();
    let document = bench.out.join("page.md");
    let page = "# Page\n<!-- make bench: every byte -->\nold\n<!-- end -->\n<!-- make bench: latency -->\nkept\n<!-- end -->\n";
    std::fs::write(&document, page).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_rsshm-bench"));
    command
        .arg("document")
        .arg(bench.out.join("report.json"))
        .arg("--document")
        .arg(&document);
    Process::start(command).wait_ok();
    let text = std::fs::read_to_string(&document).unwrap();
    let row = text
        .lines()
        .find(|line| line.starts_with("| rsshm, `lossless=true` | "))
        .unwrap();
    let rate: f64 = row.split(" | ").nth(1).unwrap().parse().unwrap();
    assert!(rate > 0.0, "{row}");
    assert!(
        text.contains("foreign, unthrottled, 1 reader, every byte read") && !text.contains("few bytes read"),
        "{text}"
    );
    // The report has no figures for this table.
    assert!(text.contains("kept") && !text.contains("old"), "{text}");
}

#[test]
fn tools_run_beside_the_readers() {
    let rsshm = PathBuf::from(env!("CARGO_BIN_EXE_rsshm-bench")).with_file_name("rsshm");
    assert!(rsshm.exists(), "build the command line tool: cargo build -p rsshm-cli");
    let mut bench = Bench::frames("tools", "--frames 60 --rates 60 --readers 2 --tools");
    bench.process.wait_ok();
    assert_nothing_left(bench.process.pid().as_raw());
    let report = bench.report();
    let results = report["results"].as_array().unwrap();
    let tools: Vec<bool> = results
        .iter()
        .map(|result| result["case"]["tools"].as_bool().unwrap())
        .collect();
    assert_eq!(tools, [false, true]);
    assert!(
        results[1]["figures"]["writer_cpu_to_without_tools"]["median"]
            .as_f64()
            .unwrap()
            > 0.0
    );
}

#[test]
fn small_benchmark_of_bursts_writes_report() {
    let mut bench = Bench::bursts("bursts", "--transports rsshm,rsshm-lossless,fakesink,shm,udp");
    let text = bench.process.wait_ok();
    assert!(
        text.contains("Bursts of 400 buffers of 1400 bytes, a buffer list, 1 reader"),
        "{text}"
    );
    assert_nothing_left(bench.process.pid().as_raw());

    let report = bench.report();
    assert_eq!(report["failures"], serde_json::json!([]));
    assert_eq!(report["results"], serde_json::json!([]));
    let bursts = report["bursts"].as_array().unwrap();
    assert_eq!(bursts.len(), 4 * 5);
    for burst in bursts {
        let (figures, run) = (&burst["figures"], &burst["runs"][0]);
        let median = |name| figures[name]["median"].as_f64().unwrap();
        assert!(median("writer_cpu_us") > 0.0, "{burst}");
        if burst["transport"] == "fakesink" {
            assert!(run["reader"].is_null());
            continue;
        }
        assert!(median("reader_cpu_us") > 0.0, "{burst}");
        assert_eq!(figures["burst_ms"].is_null(), burst["transport"] == "shm", "{burst}");
        if burst["transport"] != "udp" {
            assert_eq!(run["lost"], 0, "{burst}");
        }
        if burst["transport"] == "rsshm" {
            assert!(
                run["writer_counts"]["frames-published"].as_u64().unwrap() >= 800,
                "{burst}"
            );
        }
    }
}

/// Checks that the benchmark fails, prints `reason`, and writes a report without results.
#[track_caller]
fn assert_fails(mut bench: Bench, reason: &str) {
    let text = bench.process.wait_error();
    assert!(text.contains(reason) && text.contains("runs failed"), "{text}");
    assert_nothing_left(bench.process.pid().as_raw());
    let report = bench.report();
    assert_eq!(report["results"], serde_json::json!([]));
    assert_eq!(report["bursts"], serde_json::json!([]));
    assert!(report["failures"][0]["reason"].as_str().unwrap().contains(reason));
}

#[test]
fn damaged_frame_is_refused() {
    assert_fails(
        Bench::frames(
            "corrupt",
            "--frames 50 --rates 240 --transports rsshm --sabotage corrupt",
        ),
        "torn or damaged",
    );
}

#[test]
fn repeated_frame_is_refused() {
    assert_fails(
        Bench::frames(
            "repeat",
            "--frames 50 --rates 240 --transports rsshm --sabotage repeat-seq",
        ),
        "comes after frame",
    );
}

#[test]
fn lost_frame_of_a_lossless_transport_is_refused() {
    assert_fails(
        Bench::frames(
            "omit",
            "--frames 50 --rates 0 --transports rsshm-lossless --sabotage omit",
        ),
        "some are lost",
    );
}

#[test]
fn lost_frame_of_a_lossy_transport_is_counted() {
    let mut bench = Bench::frames("missed", "--frames 50 --rates 240 --transports rsshm --sabotage omit");
    bench.process.wait_ok();
    let missed = bench.report()["results"][0]["runs"][0]["missed"].as_u64().unwrap();
    assert!(missed >= 1);
}

#[test]
fn damaged_buffer_of_a_burst_is_refused() {
    assert_fails(
        Bench::bursts("burst-corrupt", "--transports rsshm --sabotage corrupt"),
        "torn or damaged",
    );
}

#[test]
fn repeated_buffer_of_a_burst_is_refused() {
    assert_fails(
        Bench::bursts("burst-repeat", "--transports rsshm --sabotage repeat-seq"),
        "comes after buffer",
    );
}

#[test]
fn lost_buffer_of_a_lossless_transport_is_refused() {
    assert_fails(
        Bench::bursts("burst-omit", "--transports rsshm-lossless --sabotage omit"),
        "some are lost",
    );
}

#[test]
fn lost_buffer_of_a_lossy_transport_is_counted() {
    let mut bench = Bench::bursts("burst-missed", "--transports rsshm --sabotage omit");
    bench.process.wait_ok();
    // One buffer of each burst is left out.
    assert_eq!(bench.report()["bursts"][0]["runs"][0]["lost"], 2);
}

#[test]
fn hanging_consumer_is_killed() {
    assert_fails(
        Bench::frames(
            "hang",
            "--frames 50 --rates 240 --transports rsshm --patience 2 --sabotage hang",
        ),
        "consumer 1: it does not send \"result\" in time",
    );
}

#[test]
fn ctrl_c_ends_all_processes_and_leaves_no_files() {
    let mut bench = Bench::frames("interrupt", "--rates 60 --frames 6000 --transports rsshm");
    let channel = PathBuf::from(format!("/dev/shm/rsshm-bench-{}-1", bench.process.pid()));
    eventually("the run has begun", || channel.exists());
    bench.process.signal(Signal::SIGINT);
    let began = Instant::now();
    let text = bench.process.wait_error();
    assert!(text.contains("interrupted"), "{text}");
    assert!(began.elapsed() < Duration::from_secs(10));
    assert_nothing_left(bench.process.pid().as_raw());
    let children = Command::new("pgrep")
        .arg("-f")
        .arg(format!("\"parent\":{}", bench.process.pid()))
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&children.stdout), "");
}
