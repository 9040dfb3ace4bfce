"""The privacy boundary and everything the guarantee rests on.

This package depends on nothing else in hushtune and knows nothing of models. Read `boundary`
first: it is the only place where private numbers become something that may be published.
"""

from hushtune.privacy.accounting import calibrate, epsilon, group_privacy
from hushtune.privacy.plan import PrivacyPlan

__all__ = ["PrivacyPlan", "calibrate", "epsilon", "group_privacy"]
