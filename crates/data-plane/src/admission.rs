//! Whether a connection may be used for a host: SNI and Host must agree, and the client must have shown what is demanded.
//!
//! A client may use one connection for several hosts (RFC 9113 section 9.1.1), but only where the certificate it was
//! shown is good for both and both demand the same of it. Anything else is answered 421, upon which clients open a
//! connection of their own for that host. Costs a request that stays with the name of its handshake two comparisons.

use crate::client_certificate::TlsSession;
use crate::error::ProxyError;
use crate::tls::ListenerTls;
use routing_table::filter::ACME_CHALLENGE;
use routing_table::{CertificateDemand, ClientCertificates, Route, VirtualHosts};
use std::sync::Arc;

/// A connection, before the current table.
pub(crate) struct Connection<'a> {
    pub(crate) virtual_hosts: &'a VirtualHosts,
    /// What the listener has ready for handshakes.
    pub(crate) tls: Option<&'a ListenerTls>,
    /// What this connection's handshake came to; `None` where it is plain.
    pub(crate) session: Option<&'a TlsSession>,
}

impl Connection<'_> {
    /// Whether a request for this host may go on this connection. `route` is what was found for it.
    pub(crate) fn admits(
        &self,
        host: &str,
        path: &str,
        route: Option<&Arc<Route>>,
    ) -> Result<(), ProxyError> {
        if let (Some(session), Some(tls)) = (self.session, self.tls) {
            self.belongs(session, tls, host)?;
        }
        let Some(route) = route else { return Ok(()) };
        let demand = route.client_certificates.as_ref();
        let is_default = self.virtual_hosts.default_route();
        if !is_default.is_some_and(|default| Arc::ptr_eq(default, route)) {
            return self.meets(path, demand);
        }
        // Requests of any host may come to the default route, and must meet what their own host demands too.
        self.meets(path, self.virtual_hosts.client_certificates(Some(host)))?;
        match demand {
            Some(_) => self.meets(path, demand),
            None => Ok(()),
        }
    }

    /// Whether the certificate that the client was shown is the one for this host, or is good for it.
    fn belongs(
        &self,
        session: &TlsSession,
        tls: &ListenerTls,
        host: &str,
    ) -> Result<(), ProxyError> {
        let Some(name) = session.server_name.as_deref() else {
            return Ok(());
        };
        if name == host
            || Arc::ptr_eq(tls.served_for(Some(name)), tls.served_for(Some(host)))
            || session.served.covers(host)
        {
            Ok(())
        } else {
            Err(ProxyError::Misdirected)
        }
    }

    fn meets(
        &self,
        path: &str,
        demand: Option<&Arc<ClientCertificates>>,
    ) -> Result<(), ProxyError> {
        match (demand, self.session) {
            (None, None) => Ok(()),
            (None, Some(session)) => match session.asked {
                None => Ok(()),
                // The name of the handshake demanded something. If it no longer does, nothing is lost.
                Some(_) if self.demand_of(session).is_none() => Ok(()),
                Some(_) => Err(ProxyError::Misdirected),
            },
            (Some(demand), None) => {
                // Certificate authorities ask for it, without TLS.
                if demand.demand == CertificateDemand::Required && !path.starts_with(ACME_CHALLENGE)
                {
                    return Err(ProxyError::Misdirected);
                }
                Ok(())
            }
            (Some(demand), Some(session)) => self.shows(session, demand),
        }
    }

    fn shows(
        &self,
        session: &TlsSession,
        demand: &Arc<ClientCertificates>,
    ) -> Result<(), ProxyError> {
        // Not asked for a certificate, it had no chance to show one.
        let asked = session.asked.as_ref().ok_or(ProxyError::Misdirected)?;
        let judgement = match session.judgement(demand) {
            Some(judgement) => judgement,
            None => {
                if self.demand_of(session).is_none_or(|own| own != demand) {
                    return Err(ProxyError::Misdirected);
                }
                let trust = self.tls.and_then(|tls| tls.trust(demand));
                session.judge(demand, trust.ok_or(ProxyError::ClientCertificate)?)
            }
        };
        if judgement.meets(demand.demand) {
            Ok(())
        } else if Arc::ptr_eq(asked, demand) || asked == demand {
            Err(ProxyError::ClientCertificate)
        } else {
            // The demand has changed since: a new handshake may bring another certificate.
            Err(ProxyError::Misdirected)
        }
    }

    /// What the name of the handshake demands now.
    fn demand_of(&self, session: &TlsSession) -> Option<&Arc<ClientCertificates>> {
        self.virtual_hosts
            .client_certificates(session.server_name.as_deref())
    }
}
