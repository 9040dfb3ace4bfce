"""An empirical lower bound on ε from the mechanism's code as it runs.

`hushtune.privacy.accounting` says what a plan costs if the code does what the plan says. Here the
code itself is asked: the boundary and the sampler run on made-up data, attacks tell from what is
released whether a unit was there, and what they achieve is turned into an ε that the code surely
exceeds. A lower bound above the claim shows a fault; one below it, together with the findings, is
evidence that cannot replace the proof.

    neighbours   how far one unit moves the sum, in exact integers
    noise        shape, scale, tails, last bits and independence of the noise
    sampling     how often and how independently units take part
    reruns       whether anything repeats when seeds are set again
    attacks      operating points, with exact confidence bounds
    bounds       from operating points to ε of all steps
"""

from hushtune.privacy.audit.findings import Finding
from hushtune.privacy.audit.mechanism import MechanismAudit, audit_mechanism

__all__ = ["Finding", "MechanismAudit", "audit_mechanism"]
