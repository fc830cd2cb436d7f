//! Where clients meet the cluster: what they ask, where, and what they hear.

use super::client::{Answer, Ask, Op};
use super::cluster::{Checked, Cluster, Event};
use super::trace::Happening;
use super::weather::TICK;
use crate::raft::NodeId;

impl Cluster {
    /// A client begins its next operation.
    pub(super) fn call(&mut self, client: usize) -> Checked {
        if !self.open || self.clients[client].busy.is_some() {
            return Ok(());
        }
        if self.calm.quiet && self.mended.is_none() {
            self.after(TICK, Event::Call { client });
            return Ok(());
        }
        let ask = self.clients[client].next(&self.weather, &mut self.random);
        let number = self.ops.len() as u64;
        self.ops.push(Op {
            client: client as u64,
            ask,
            called: self.now,
            returned: None,
            answer: None,
            maybe: false,
        });
        self.clients[client].busy = Some(number);
        self.after(self.weather.patience, Event::GiveUp { number });
        self.ask(number);
        Ok(())
    }

    /// Sends a request to the node that the client believes to lead, or to any.
    fn ask(&mut self, number: u64) {
        let client = self.ops[number as usize].client as usize;
        let any: Vec<NodeId> = self.nodes.keys().copied().collect();
        let stray = self.random.one_in(self.weather.stray_one_in);
        let believed = self.clients[client].believes.filter(|_| !stray);
        let Some(node) = believed.or_else(|| self.random.pick(&any)) else {
            return;
        };
        self.ops[number as usize].maybe = true;
        let ask = self.ops[number as usize].ask.clone();
        self.note(|_| Happening::Asked {
            client: client as u64,
            number,
            node,
            ask,
        });
        self.clients[client].believes = Some(node);
        let delay = self.random.within((100, 2_000));
        self.after(delay, Event::Request { number, node });
    }

    /// A node answers; the answer takes a while.
    pub(super) fn answer(&mut self, number: u64, answer: Answer) {
        let delay = self.random.within((100, 2_000));
        self.after(delay, Event::Answer { number, answer });
    }

    /// An answer has come.
    pub(super) fn answered(&mut self, number: u64, answer: Answer) -> Checked {
        let op = &mut self.ops[number as usize];
        let (client, now) = (op.client as usize, self.now);
        if self.clients[client].busy != Some(number) {
            return Ok(());
        }
        if let Answer::NotTaken(leader) = answer {
            op.maybe = false;
            self.clients[client].believes = leader;
            let wait = self.random.within((1_000, TICK));
            if self.now + wait < self.ops[number as usize].called + self.weather.patience {
                self.ask_again(number, wait);
            }
            return Ok(());
        }
        op.answer = Some(answer.clone());
        op.returned = Some(now);
        let ask = op.ask.clone();
        let client_id = client as u64;
        self.note(|_| Happening::Answered {
            client: client_id,
            number,
            answer: answer.clone(),
        });
        let client = &mut self.clients[client];
        client.learn(number, &ask, &answer);
        client.served += u64::from(self.mended.is_some());
        self.done(client_id as usize);
        Ok(())
    }

    fn ask_again(&mut self, number: u64, wait: u64) {
        // Asked at once; on its way a little longer.
        let client = self.ops[number as usize].client as usize;
        let any: Vec<NodeId> = self.nodes.keys().copied().collect();
        let node = self.clients[client]
            .believes
            .or_else(|| self.random.pick(&any));
        let Some(node) = node else { return };
        let op = &mut self.ops[number as usize];
        op.maybe = true;
        let ask = op.ask.clone();
        self.note(|_| Happening::Asked {
            client: client as u64,
            number,
            node,
            ask,
        });
        self.clients[client].believes = Some(node);
        self.after(wait, Event::Request { number, node });
    }

    /// The client has waited long enough.
    pub(super) fn give_up(&mut self, number: u64) -> Checked {
        let client = self.ops[number as usize].client as usize;
        if self.clients[client].busy != Some(number) {
            return Ok(());
        }
        self.note(|_| Happening::GaveUp {
            client: client as u64,
            number,
        });
        self.ops[number as usize].returned = Some(self.now);
        self.clients[client].believes = None;
        if matches!(self.ops[number as usize].ask, Ask::Lease(..)) {
            self.clients[client].lease += 1;
        }
        self.done(client);
        Ok(())
    }

    fn done(&mut self, client: usize) {
        self.clients[client].busy = None;
        let think = self.random.within(self.weather.think);
        self.after(think, Event::Call { client });
    }
}
