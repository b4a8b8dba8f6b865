//! What operators order: attach, detach.

use patronus_api::{OrderedResponse, PrefilterCommand, PrefilterCommandRequest};
use patronus_config::WanHook;

use super::{Guarded, Inner, Order, Prefilter};

/// Why an order was not carried out: the field of the request, what is wrong, and the fix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderRefused {
    /// The field of the request.
    pub field: &'static str,
    /// What is wrong.
    pub error: String,
    /// What to do.
    pub fix: String,
}

impl Prefilter {
    /// Carries an order out, or says what it would do.
    ///
    /// # Errors
    /// A request that makes no sense, or what the kernel refused. An attachment that was there stays then.
    pub fn order(
        &self,
        request: &PrefilterCommandRequest,
    ) -> Result<OrderedResponse, OrderRefused> {
        let mut inner = self.lock();
        match request.command {
            PrefilterCommand::Attach => inner.order_attach(request),
            PrefilterCommand::Detach => inner.order_detach(request),
        }
    }
}

impl Inner {
    fn order_attach(
        &mut self,
        request: &PrefilterCommandRequest,
    ) -> Result<OrderedResponse, OrderRefused> {
        let hook = match &request.hook {
            None if self.wanted.settings.wan == WanHook::Off => WanHook::Auto,
            None => self.wanted.settings.wan,
            Some(word) => hook_of(word)?,
        };
        let names = self.names(request.interface.as_deref(), "attach")?;
        let text = format!("attach to {} at {}", names.join(", "), hook.word());
        let mut warnings = Vec::new();
        if self.wanted.settings.wan == WanHook::Off {
            warnings.push("[prefilter] wan = \"off\": a reload takes it off again".to_owned());
        }
        if request.dry_run {
            return Ok(answer(false, text, warnings));
        }
        let mut before: Vec<(String, Option<Order>)> = Vec::new();
        for name in &names {
            let guarded = self.guarded.entry(name.clone()).or_default();
            before.push((name.clone(), guarded.order.replace(Order::Attach(hook))));
            guarded.settled_for = None;
        }
        self.load();
        self.fill();
        self.reconcile();
        let fault = match &self.unavailable {
            Some(why) => Some(why.clone()),
            None => names.iter().find_map(|name| self.fault_of(name)),
        };
        let Some(why) = fault else {
            let done = names.iter().filter_map(|name| {
                let hook = self.guarded.get(name)?.attachment.as_ref()?.hook();
                Some(format!("{name} at {hook}"))
            });
            let done = done.collect::<Vec<_>>().join(", ");
            return Ok(answer(true, format!("attached to {done}"), warnings));
        };
        // What was before stays the operator's will.
        for (name, order) in before {
            if let Some(guarded) = self.guarded.get_mut(&name) {
                guarded.order = order;
            }
        }
        self.load();
        self.reconcile();
        let field = if request.hook.is_some() {
            "hook"
        } else {
            "interface"
        };
        Err(refused(
            field,
            why,
            "`patronus prefilter show` tells how it stands",
        ))
    }

    fn order_detach(
        &mut self,
        request: &PrefilterCommandRequest,
    ) -> Result<OrderedResponse, OrderRefused> {
        if request.hook.is_some() {
            let fix = "leave it out: an interface has the filter at one hook";
            return Err(refused("hook", "detach takes no hook".to_owned(), fix));
        }
        let names = self.names(request.interface.as_deref(), "detach")?;
        let text = format!("detach from {}", names.join(", "));
        if request.dry_run {
            return Ok(answer(false, text, Vec::new()));
        }
        for name in &names {
            if let Some(guarded) = self.guarded.get_mut(name) {
                (guarded.order, guarded.settled_for) = (Some(Order::Detach), None);
            }
        }
        self.reconcile();
        let until = "until the next reload or restart".to_owned();
        Ok(answer(true, format!("{text} {until}"), Vec::new()))
    }

    /// The interfaces that a request means.
    fn names(&self, interface: Option<&str>, verb: &str) -> Result<Vec<String>, OrderRefused> {
        let known = || self.guarded.keys().cloned().collect::<Vec<_>>();
        match interface {
            Some(name) if self.guarded.contains_key(name) => Ok(vec![name.to_owned()]),
            // One that the configuration does not guard may still lead out.
            Some(name) if verb == "attach" && super::index_of(name).is_some() => {
                Ok(vec![name.to_owned()])
            }
            Some(name) if verb == "attach" => {
                let fix = "`ip link` shows which there are";
                Err(refused("interface", format!("no interface `{name}`"), fix))
            }
            Some(name) => {
                let error = format!("the pre-filter knows no interface `{name}`");
                let fix = format!("name one of {}", known().join(", "));
                Err(refused("interface", error, &fix))
            }
            None if self.guarded.is_empty() => {
                let error = "no interface leads out, as far as the gateway knows".to_owned();
                let fix = "name one, or write [prefilter] interfaces";
                Err(refused("interface", error, fix))
            }
            None => Ok(known()),
        }
    }

    /// Why an interface has no filter, or another than was asked for.
    fn fault_of(&self, name: &str) -> Option<String> {
        let guarded = self.guarded.get(name)?;
        match (&guarded.attachment, &guarded.why, guarded.is_refused) {
            (Some(_), _, false) => None,
            (_, Some(why), _) => Some(why.clone()),
            (None, None, _) => Some(format!("there is no interface `{name}`")),
            (Some(_), None, true) => None,
        }
    }
}

impl Guarded {
    /// Where the filter is wanted here.
    pub(super) fn wants(&self, configured: WanHook) -> WanHook {
        match self.order {
            None => configured,
            Some(Order::Attach(hook)) => hook,
            Some(Order::Detach) => WanHook::Off,
        }
    }
}

fn hook_of(word: &str) -> Result<WanHook, OrderRefused> {
    let found = WanHook::WORDS.iter().find(|(name, _)| *name == word);
    match found {
        Some((_, hook)) if *hook != WanHook::Off => Ok(*hook),
        _ => {
            let fix = "write auto, xdp, xdp-generic, tcx or clsact";
            Err(refused("hook", format!("no hook `{word}`"), fix))
        }
    }
}

fn refused(field: &'static str, error: String, fix: &str) -> OrderRefused {
    OrderRefused {
        field,
        error,
        fix: fix.to_owned(),
    }
}

fn answer(done: bool, text: String, warnings: Vec<String>) -> OrderedResponse {
    OrderedResponse {
        done,
        text,
        warnings,
    }
}
