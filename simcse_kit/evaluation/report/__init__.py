"""The report pages: self-contained HTML made from evaluation results and training histories."""
