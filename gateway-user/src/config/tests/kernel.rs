//! What the kernel's SAs and policies get: windows and marks.

use super::*;

#[test]
fn replay_windows_from_none_to_the_kernels_widest() {
    let child = |line: &str| {
        let text = GOOD.replacen("life_time", &format!("{line}\nlife_time"), 1);
        Config::parse(&text).map(|config| {
            let child = &config.connections[0].children[0];
            assert!(child.replay_window > 0 || child.esp_proposals.iter().all(|suite| !suite.esn));
            child.replay_window
        })
    };
    assert_eq!(child("").unwrap(), 32);
    assert_eq!(child("replay_window = 0").unwrap(), 0);
    assert_eq!(child("replay_window = 4096").unwrap(), 4096);
    for (line, words) in [
        ("replay_window = 4097", ["replay_window", "0 to 4096"]),
        (
            "replay_window = 0\nesp_proposals = [\"aes128gcm16-esn\"]",
            ["replay_window", "esn"],
        ),
        (
            "hw_offload = \"packet\"",
            ["hw_offload", "sequence numbers"],
        ),
        ("hw_offload = \"auto\"", ["hw_offload", "cluster"]),
    ] {
        let error = child(line).unwrap_err().to_string();
        for word in words {
            assert!(error.contains(word), "{line}: {error}");
        }
    }
    assert_eq!(child("hw_offload = \"no\"").unwrap(), 32);
}

fn with_marks(lines: &str) -> Result<Marks, String> {
    let text = GOOD.replacen("life_time = \"2h\"", lines, 1);
    let config = Config::parse(&text).map_err(|error| error.to_string())?;
    Ok(config.connections[0].children[0].marks)
}

#[test]
fn marks_are_swanctls() {
    assert_eq!(with_marks(""), Ok(Marks::default()));
    let marks = with_marks(
        "mark_in = \"42\"\nmark_in_sa = true\nmark_out = \"0x2b/0xff\"\n\
         set_mark_in = \"%same\"\nset_mark_out = \"%same/0xfffc00ff\"",
    );
    let expected = Marks {
        inbound: Mark::new(42, u32::MAX),
        inbound_sa: true,
        outbound: Mark::new(0x2b, 0xff),
        set_in: Mark::new(42, u32::MAX),
        set_out: Mark::new(0x2b, 0xfffc_00ff),
    };
    assert_eq!(marks, Ok(expected));
    // Bits of ours in the mask alone: packets that are not encrypted yet have none of them.
    assert!(with_marks("mark_out = \"0xff/0xffffff\"").is_ok());
}

#[test]
fn marks_that_the_gateway_needs_itself_are_refused_with_the_free_bits() {
    for (line, problem) in [
        ("mark_in = \"0x100\"", "values of the free bits, 0xfffc00ff"),
        (
            "mark_out = \"0x20000/0xf0000\"",
            "values of the free bits, 0xfffc00ff",
        ),
        (
            "set_mark_in = \"0x1ff\"",
            "values of the free bits, 0xfffc00ff",
        ),
        ("set_mark_out = \"42\"", "like \"0x2a/0xfffc00ff\""),
        ("mark_in = \"%unique\"", "a mark of its own for each child"),
        (
            "mark_out = \"%unique-dir\"",
            "a mark of its own for each child",
        ),
        ("mark_in = \"red\"", "a mark like \"42\""),
        ("mark_in_sa = true", "there is no mark_in"),
    ] {
        let error = with_marks(line).unwrap_err();
        let key = line.split(' ').next().unwrap();
        assert!(error.contains(&format!("children.net.{key}")), "{error}");
        assert!(error.contains(problem), "{line}: {error}");
    }
}
