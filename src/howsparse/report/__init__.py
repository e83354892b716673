"""What a person is shown: tables and pictures of one network's answer."""
