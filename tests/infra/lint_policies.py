"""Policies as JSON on standard input -> parliament's findings as JSON.

Runs in .venv-infra, which has no pytest.
"""

import json
import sys
import warnings

warnings.simplefilter("ignore")  # parliament still imports pkg_resources

from parliament import analyze_policy_string  # noqa: E402

found = [
    {
        "where": name,
        "issue": finding.issue,
        "detail": str(finding.detail),
        "location": str(finding.location),
    }
    for name, policy in json.load(sys.stdin)
    for finding in analyze_policy_string(policy, include_community_auditors=True).findings
]
json.dump(found, sys.stdout)
