// SPDX-License-Identifier: MIT OR Apache-2.0

//! Every command with every kind of stream: raw video, encoded video, pictures, audio and data.

use std::{
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use rsshm_testkit::{Process, gst, need_program, on_this_machine};
use serde_json::Value;

use crate::{
    support::{Channel, Run, Running, rsshm, run},
    terminal::typescript,
};

/// What a command can do with a kind of stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Raw video, which is converted.
    Raw,
    /// Encoded pictures, which are decoded.
    Still,
    /// Encoded video: GStreamer decodes it.
    Encoded,
    /// Sound: GStreamer plays it.
    Audio,
    /// Bytes that only their program understands.
    Data,
}

/// A channel with a writer, and what `list` shows of it.
struct Stream {
    kind: Kind,
    channel: Channel,
    shown: &'static str,
    _writer: Process,
}

const VIDEO: &str = "videotestsrc is-live=true ! video/x-raw,width=64,height=48,framerate=30/1,format=";
const AUDIO: &str = "audiotestsrc is-live=true samplesperbuffer=960 ! audio/x-raw,rate=48000,channels=2,format=";

/// The streams of GStreamer: what `list` shows, and the pipeline before the sink.
fn pipelines() -> Vec<(Kind, &'static str, String)> {
    let h264 = |format| {
        format!("{VIDEO}I420 ! x264enc tune=zerolatency key-int-max=5 ! video/x-h264,stream-format={format} !")
    };
    vec![
        (Kind::Raw, "NV12", format!("{VIDEO}NV12 !")),
        (Kind::Raw, "GRAY16_LE", format!("{VIDEO}GRAY16_LE !")),
        (Kind::Still, "image/jpeg", format!("{VIDEO}I420 ! jpegenc !")),
        (Kind::Still, "image/png", format!("{VIDEO}RGB ! pngenc !")),
        (Kind::Encoded, "video/x-h264", h264("byte-stream")),
        (Kind::Encoded, "video/x-h264", h264("avc")),
        (Kind::Encoded, "video/mpegts", format!("{} mpegtsmux !", h264("byte-stream"))),
        (Kind::Audio, "S16LE 48 kHz x2", format!("{AUDIO}S16LE !")),
        (Kind::Audio, "audio/x-opus 48 kHz x2", format!("{AUDIO}S16LE ! opusenc !")),
        (Kind::Audio, "audio/mpeg 48 kHz x2", format!("{AUDIO}F32LE ! avenc_aac !")),
        // Records of differing sizes without a clock of their own, as of KLV: several share a slot.
        (
            Kind::Data,
            "meta/x-klv",
            "fakesrc is-live=true sync=true format=time datarate=20000 sizetype=random sizemin=20 sizemax=200 filltype=pattern ! meta/x-klv,parsed=true !"
                .to_owned(),
        ),
    ]
}

fn streams() -> Vec<Stream> {
    let start = |(kind, shown, pipeline): (Kind, &'static str, String)| {
        let channel = Channel::new();
        let _writer = gst::launch(&format!("{pipeline} rsshmsink channel={}", channel.0));
        Stream {
            kind,
            channel,
            shown,
            _writer,
        }
    };
    let streams: Vec<Stream> = pipelines().into_iter().map(start).collect();
    for stream in &streams {
        run(&format!("wait {} --timeout 20s", stream.channel.0)).expect(0);
    }
    streams
}

/// Runs a command on all streams at the same time, because measurements take a second. `CH` is the name of the channel.
fn on_all(streams: &[Stream], arguments: &str) -> Vec<Run> {
    let run = |stream: &Stream| Run::of(rsshm(&arguments.replace("CH", stream.channel.as_str())));
    std::thread::scope(|scope| {
        let running: Vec<_> = streams.iter().map(|stream| scope.spawn(move || run(stream))).collect();
        running.into_iter().map(|run| run.join().unwrap()).collect()
    })
}

/// Checks each run of a command with what its stream is.
#[track_caller]
fn expect(streams: &[Stream], arguments: &str, check: impl Fn(&Stream, &Run) -> bool) {
    for (stream, run) in streams.iter().zip(on_all(streams, arguments)) {
        assert!(
            check(stream, &run),
            "{arguments}, {:?} {}: {run:?}",
            stream.kind,
            stream.shown
        );
    }
}

/// Whether the command was refused, and its error has a line to copy for this kind of stream.
fn is_refusal(stream: &Stream, run: &Run) -> bool {
    let source = format!("\n    gst-launch-1.0 rsshmsrc channel={} ! ", stream.channel.0);
    let is_advice = match stream.kind {
        Kind::Encoded => {
            run.stderr.contains("rsshm does not decode") && run.stderr.contains("decodebin ! videoconvert ! pngenc")
        }
        Kind::Audio => run.stderr.contains("is no picture") && run.stderr.contains("autoaudiosink"),
        Kind::Data => run
            .stderr
            .contains(&format!("is no picture; `rsshm cat {}`", stream.channel.0)),
        Kind::Raw | Kind::Still => false,
    };
    run.code == 1 && is_advice && (stream.kind == Kind::Data || run.stderr.contains(&source))
}

fn is_visible(stream: &Stream) -> bool {
    matches!(stream.kind, Kind::Raw | Kind::Still)
}

#[test]
fn every_command_answers_for_every_kind_of_stream() {
    need_program!("gst-launch-1.0");
    need_program!("script");
    let streams = streams();
    let path = |name: &str| std::env::temp_dir().join(format!("rsshm-cli-test-{}-{name}", std::process::id()));
    let first_line = |run: &Run| run.stdout.lines().next().unwrap_or_default().to_owned();

    expect(&streams, "list CH", |stream, run| {
        run.code == 0 && run.stdout.contains(stream.shown) && run.stdout.contains("alive")
    });
    expect(&streams, "info CH", |stream, run| {
        let sink = match (stream.kind, stream.shown) {
            (Kind::Raw, _) => "autovideosink",
            (Kind::Still | Kind::Encoded, _) => "decodebin ! videoconvert ! autovideosink",
            (Kind::Audio, shown) if shown.starts_with("S16LE") => "audioconvert ! audioresample ! autoaudiosink",
            (Kind::Audio, _) => "decodebin ! audioconvert ! audioresample ! autoaudiosink",
            (Kind::Data, _) => "fakesink dump=true",
        };
        let line = format!("gst-launch-1.0 rsshmsrc channel={} ! {sink}\n", stream.channel.0);
        run.code == 0 && run.stdout.contains(&line)
    });
    expect(&streams, "top -b -n 1 -d 2s --json CH", |_, run| {
        let sample: Value = serde_json::from_str(&run.stdout).unwrap();
        let channel = &sample["channels"][0];
        run.code == 0 && channel["state"] == "alive" && channel["fps"].as_f64() > Some(0.0)
    });
    for (command, words) in [
        ("hz", "average rate: "),
        ("bw", "/s from "),
        ("delay", "average delay: "),
    ] {
        expect(&streams, &format!("{command} CH -n 1"), |_, run| {
            run.code == 0 && run.stdout.contains(words) && run.stdout.lines().count() == 2
        });
    }
    expect(&streams, "echo CH -n 6 --json", |stream, run| {
        let lines = run
            .stdout
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        let frames: Vec<Value> = lines.collect();
        let has = |keyframe: bool| frames.iter().any(|frame| frame["keyframe"] == keyframe);
        // Of five frames of video, one is a keyframe. Every other frame can be decoded alone.
        let keyframes = match (stream.kind, stream.shown) {
            (Kind::Encoded, "video/x-h264") => has(true) && has(false),
            (Kind::Encoded, _) => true,
            _ => !has(false),
        };
        let planes = frames[0]["planes"].as_array().map_or(0, Vec::len);
        let expected = match stream.shown {
            "NV12" => 2,
            "GRAY16_LE" => 1,
            _ => 0,
        };
        // A raw frame in GStreamer's default layout need not list its planes.
        run.code == 0 && keyframes && frames.len() == 6 && (planes == expected || planes == 0)
    });
    expect(&streams, "echo CH -n 2 -v", |_, run| {
        run.code == 0 && run.stdout.contains("pts=")
    });
    expect(&streams, "snapshot CH -o - --type raw", |_, run| {
        run.code == 0 && !run.stdout.is_empty()
    });
    for (extension, magic) in [("png", &b"\x89PNG"[..]), ("jpg", b"\xff\xd8\xff")] {
        let file = |stream: &Stream| path(&format!("{}.{extension}", stream.channel.0));
        expect(
            &streams,
            &format!("snapshot CH -o {}", path(&format!("CH.{extension}")).display()),
            |stream, run| {
                let bytes = std::fs::read(file(stream));
                let _ = std::fs::remove_file(file(stream));
                match is_visible(stream) {
                    true => run.code == 0 && bytes.is_ok_and(|bytes| bytes.starts_with(magic)),
                    false => is_refusal(stream, run) && bytes.is_err(),
                }
            },
        );
    }
    expect(&streams, "cat CH -n 3", |_, run| {
        run.code == 0 && !run.stdout.is_empty()
    });
    for (form, begins) in [
        ("y4m", "YUV4MPEG2 W64 H48 F30:1 "),
        ("mjpeg", "\u{fffd}\u{fffd}\u{fffd}"),
    ] {
        expect(
            &streams,
            &format!("cat CH -n 3 --{form}"),
            |stream, run| match is_visible(stream) {
                true => run.code == 0 && run.stdout.starts_with(begins),
                false => is_refusal(stream, run) && run.stdout.is_empty(),
            },
        );
    }
    expect(&streams, "wait CH --for caps --timeout 1s", |_, run| run.code == 0);
    let most = on_this_machine(Duration::from_secs(30)).as_secs();
    expect(
        &streams,
        &format!("check CH --max-age {most}s --min-fps 0.4 --during 2s"),
        |stream, run| run.code == 0 && first_line(run).starts_with(&format!("{} OK: ", stream.channel.0)),
    );
    expect(&streams, "clean CH", |_, run| {
        run.code == 1 && run.stderr.contains("its writer is alive")
    });
    expect(&streams, "clean CH --dry-run", |_, run| run.code == 1);
    expect(&streams, "publish CH - --caps x/y --frame-size 1", |_, run| {
        run.code == 1 && run.stderr.contains("already has a writer")
    });
    expect(&streams, "metrics CH", |stream, run| {
        run.code == 0
            && run
                .stdout
                .contains(&format!("rsshm_up{{channel=\"{}\"}} 1\n", stream.channel.0))
    });
    let doctor = run("doctor --quick --json").json();
    let text = doctor.to_string();
    for stream in &streams {
        assert!(
            !text.contains(&format!("{}\"", stream.channel.0)),
            "nothing is wrong: {text}"
        );
        watch(stream);
    }
    lines_to_copy_work(&streams);
    for stream in &streams {
        assert!(stream.channel.exists());
    }
}

/// Checks `watch` of a stream in a terminal.
fn watch(stream: &Stream) {
    let (code, text) = typescript(&format!("watch {} --as blocks -n 1", stream.channel.0));
    let text = text.replace("\r\n", "\n");
    if is_visible(stream) {
        assert!(code == 0 && text.contains('▀'), "{}: {text:?}", stream.shown);
    } else {
        let run = Run {
            code,
            stdout: String::new(),
            stderr: text,
        };
        assert!(is_refusal(stream, &run), "{}: {run:?}", stream.shown);
        let (end, error) = (run.stderr.find("\x1b[?1049l"), run.stderr.find("channel "));
        assert!(end < error, "the terminal is given back before the error: {run:?}");
    }
}

/// The line in the error of a picture of encoded video makes that picture.
fn lines_to_copy_work(streams: &[Stream]) {
    for stream in streams.iter().filter(|stream| stream.kind == Kind::Encoded) {
        let error = run(&format!("snapshot {} -o a.png", stream.channel.0)).expect(1).stderr;
        let line = error.lines().find(|line| line.contains("filesink")).unwrap();
        let file = std::env::temp_dir().join(format!("{}-line.png", stream.channel.0));
        let line = line.trim().replace("a.png", &file.display().to_string());
        let mut shell = Command::new("sh");
        shell.args(["-c", &line]).stdin(Stdio::null()).stdout(Stdio::null());
        shell.envs(
            gst::command("true")
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        );
        let code = Running::start(shell).wait();
        assert_eq!(code, Some(0), "{line}");
        assert_eq!(image_size(&file), (64, 48), "{line}");
        std::fs::remove_file(file).unwrap();
    }
}

fn image_size(file: &Path) -> (u32, u32) {
    image::image_dimensions(file).unwrap()
}
