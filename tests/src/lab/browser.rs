//! A headless Chromium, told what to do through the DevTools protocol over a pair of pipes.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use super::node::command;

/// The shell gives the browser descriptor 3 to read commands from and 4 to write answers to, and the
/// time limit ends it should nobody do so.
const START: &str = "exec timeout -k 5 600 chromium --headless=new --no-sandbox --disable-gpu \
    --no-first-run --window-size=1280,1500 --disable-background-networking --disable-component-update \
    --disable-dev-shm-usage --lang=en --user-data-dir=\"$1/profile\" --remote-debugging-pipe \
    about:blank 3<\"$1/commands\" 4>\"$1/answers\"";

/// A browser with one page. Ended, and its folder removed, when it is dropped.
#[derive(Debug)]
pub struct Browser {
    child: Child,
    folder: PathBuf,
    commands: File,
    answers: BufReader<File>,
    session: Option<String>,
    last: u64,
}

impl Browser {
    /// Whether there is a `chromium` to be run.
    pub fn is_installed() -> bool {
        Command::new("chromium")
            .arg("--version")
            .output()
            .is_ok_and(|output| output.status.success())
    }

    /// Starts it with its profile in `folder`, which is made anew, and opens `url`.
    ///
    /// # Errors
    /// It does not start, or does not open the page.
    pub fn open(folder: &Path, url: &str) -> Result<Self> {
        let _ = std::fs::remove_dir_all(folder);
        std::fs::create_dir_all(folder)?;
        let pipe = |name: &str| folder.join(name).display().to_string();
        command("mkfifo", &[&pipe("commands"), &pipe("answers")])?;
        let child = Command::new("sh")
            .args(["-c", START, "sh"])
            .arg(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(folder.join("stderr"))?)
            .spawn()
            .context("chromium")?;
        // Each waits for the shell's other end.
        let commands = File::options().write(true).open(folder.join("commands"))?;
        let answers = BufReader::new(File::open(folder.join("answers"))?);
        let mut browser = Self {
            child,
            folder: folder.to_owned(),
            commands,
            answers,
            session: None,
            last: 0,
        };
        let target = browser.call("Target.createTarget", &json!({"url": url}))?;
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let attached = browser.call("Target.attachToTarget", &attach)?;
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        Ok(browser)
    }

    /// One command of the protocol; events that come meanwhile are left out.
    fn call(&mut self, method: &str, parameters: &Value) -> Result<Value> {
        self.last += 1;
        let mut message = json!({"id": self.last, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        self.commands
            .write_all(format!("{message}\0").as_bytes())
            .context(method.to_owned())?;
        loop {
            let mut octets = Vec::new();
            let read = self.answers.read_until(0, &mut octets)?;
            if read == 0 {
                let errors = std::fs::read_to_string(self.folder.join("stderr"));
                bail!("chromium ended at {method}: {}", errors.unwrap_or_default());
            }
            octets.pop();
            let mut answer: Value = serde_json::from_slice(&octets).context("DevTools")?;
            if answer["id"] == self.last {
                ensure!(answer["error"].is_null(), "{method}: {}", answer["error"]);
                return Ok(answer["result"].take());
            }
        }
    }

    /// Opens another page, or the same again.
    ///
    /// # Errors
    /// It cannot be reached.
    pub fn navigate(&mut self, url: &str) -> Result<()> {
        let answer = self.call("Page.navigate", &json!({"url": url}))?;
        ensure!(
            answer["errorText"].is_null(),
            "{url}: {}",
            answer["errorText"]
        );
        Ok(())
    }

    /// What a JavaScript expression of the page is; promises are awaited.
    ///
    /// # Errors
    /// It throws, or the browser has ended.
    pub fn evaluate(&mut self, expression: &str) -> Result<Value> {
        let parameters =
            json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let mut result = self.call("Runtime.evaluate", &parameters)?;
        let thrown = &result["exceptionDetails"];
        ensure!(thrown.is_null(), "{expression}: {thrown}");
        Ok(result["result"]["value"].take())
    }

    /// The text that a person sees in the first element of a selector; empty if there is none.
    ///
    /// # Errors
    /// The browser has ended.
    pub fn text(&mut self, selector: &str) -> Result<String> {
        let expression = format!("document.querySelector({})?.innerText", json!(selector));
        let text = self.evaluate(&expression)?;
        Ok(text.as_str().unwrap_or_default().to_owned())
    }

    /// A picture of what is in the window.
    ///
    /// # Errors
    /// The file cannot be written, or the browser has ended.
    pub fn screenshot(&mut self, file: &Path) -> Result<()> {
        let picture = self.call("Page.captureScreenshot", &json!({"format": "png"}))?;
        let encoded = self.folder.join("picture");
        let text = picture["data"].as_str().context("no picture")?;
        std::fs::write(&encoded, text)?;
        let decoded = Command::new("base64").arg("-d").arg(&encoded).output()?;
        ensure!(decoded.stdout.starts_with(b"\x89PNG"), "not a PNG");
        Ok(std::fs::write(file, decoded.stdout)?)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.call("Browser.close", &json!({}));
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
