//! One run: a producer and its consumers, from their start to their end.

use std::{
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    time::{Duration, Instant},
};

use serde::de::DeserializeOwned;

use crate::{
    child::{Role, Said},
    order::Order,
    report::Run,
    talk, traces,
};

/// Set when the user wants it to end.
pub static INTERRUPTED: AtomicBool = AtomicBool::new(false);

pub const INTERRUPTION: &str = "interrupted";

struct Running {
    /// The producer, and the consumers after it; each one's index is its number.
    roles: Vec<Role>,
    sender: Sender<Said>,
    receiver: Receiver<Said>,
}

/// Runs what `order` says; a program that is late by `patience` is killed.
pub fn run(order: &mut Order, round: u32, patience: Duration) -> Result<Run, String> {
    let (sender, receiver) = channel();
    let mut running = Running {
        roles: Vec::new(),
        sender,
        receiver,
    };
    let outcome = running.run(order, round, patience);
    let failed = outcome.is_err();
    // What still runs is killed here.
    drop(running);
    let left = traces::remove_channel(&order.place.channel);
    if left && !failed {
        return Err(format!("{}: it leaves files in /dev/shm behind", order.transport));
    }
    outcome
}

impl Running {
    fn run(&mut self, order: &mut Order, round: u32, patience: Duration) -> Result<Run, String> {
        let soon = || Instant::now() + patience;
        self.start("produce", order)?;
        let ready = self.collect(0..1, talk::READY, soon())?;
        order.place.port = ready.first().and_then(|port| port.parse().ok()).unwrap_or(0);
        let readers = if order.transport.is_alone() {
            0
        } else {
            order.case.readers as usize
        };
        for _ in 0..readers {
            self.start("consume", order)?;
        }
        let everybody = 1..readers + 1;
        self.collect(everybody.clone(), talk::FIRST, soon())?;
        let nominal = (order.frames + order.warm)
            .checked_div(order.case.rate.into())
            .unwrap_or(0);
        self.roles[0].go()?;
        let results = self.collect(0..readers + 1, talk::RESULT, soon() + Duration::from_secs(nominal * 2))?;
        let mut results = results.iter();
        let produced = parse(results.next())?;
        let consumed = results.map(|result| parse(Some(result))).collect::<Result<_, _>>()?;
        // Consumers first: none of them then sees a producer vanish.
        let deadline = soon();
        self.roles.iter_mut().skip(1).for_each(Role::stop);
        for role in self.roles.iter_mut().rev() {
            role.end(deadline)?;
        }
        Ok(Run::new(round, order.frames, produced, consumed))
    }

    fn start(&mut self, command: &str, order: &Order) -> Result<(), String> {
        let role = Role::start(command, self.roles.len(), order, self.sender.clone())?;
        self.roles.push(role);
        Ok(())
    }

    /// Waits until all of these have said the word, and yields what they said after it.
    fn collect(&mut self, who: std::ops::Range<usize>, word: &str, deadline: Instant) -> Result<Vec<String>, String> {
        let mut said = vec![None; who.len()];
        while let Some(missing) = said.iter().position(Option::is_none) {
            if INTERRUPTED.load(Ordering::Relaxed) {
                // Partner: the store in rounds::watch_for_signals. Nothing else hangs on it.
                return Err(INTERRUPTION.into());
            }
            match self.receiver.recv_timeout(Duration::from_millis(200)) {
                Ok((index, Some(line))) => {
                    let place = index.checked_sub(who.start).and_then(|place| said.get_mut(place));
                    if let (Some(rest), Some(place)) = (talk::after(&line, word), place) {
                        *place = Some(rest.to_owned());
                    }
                }
                Ok((index, None)) => {
                    let role = &mut self.roles[index];
                    // Its last words and its status are there when it has ended.
                    let ended = role.end(Instant::now() + Duration::from_secs(5));
                    return Err(ended.err().unwrap_or_else(|| role.blame("it ends early")));
                }
                Err(RecvTimeoutError::Timeout) if Instant::now() < deadline => {}
                Err(_) => {
                    return Err(self.roles[who.start + missing].blame(&format!("it does not say \"{word}\" in time")));
                }
            }
        }
        Ok(said.into_iter().flatten().collect())
    }
}

fn parse<T: DeserializeOwned>(result: Option<&String>) -> Result<T, String> {
    let result = result.ok_or("a result is missing")?;
    serde_json::from_str(result).map_err(|error| format!("a result that cannot be read: {error}"))
}
